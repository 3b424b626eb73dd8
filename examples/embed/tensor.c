/* The C API alone: tensors from C arrays, ops by name, gradients, and what happens to a
 * call that cannot work. Read next: <nyx/tensor.h>, <nyx/op.h>, <nyx/grad.h>. */
#include <nyx/nyx.h>
#include <stdio.h>

static nyx_context *ctx;

/* Applies an op of one or two inputs; NULL when it failed. */
static nyx_tensor *apply(const char *name, nyx_tensor *a, nyx_tensor *b) {
  nyx_tensor *in[] = {a, b}, *out = NULL;
  const nyx_op *op = nyx_op_find(name);
  if (op == NULL || nyx_apply(ctx, op, in, b ? 2 : 1, NULL, &out) != NYX_OK) return NULL;
  return out;
}

static void show(const char *name, nyx_tensor *t) {
  char *text;
  if (nyx_tensor_format(ctx, t, NULL, &text) != NYX_OK) return;
  printf("%s =\n%s\n", name, text);
  nyx_memory_free(text);
}

/* loss = sum((x w)^2), and its gradient for w. */
static bool differentiate(nyx_tensor *x, nyx_tensor *w) {
  if (nyx_tensor_set_requires_grad(ctx, w, true) != NYX_OK) return false;
  nyx_tensor *y = apply("matmul", x, w);
  nyx_tensor *square = y ? apply("mul", y, y) : NULL;
  nyx_tensor *loss = square ? apply("sum", square, NULL) : NULL;
  double value;
  bool ok = loss && nyx_tensor_item(ctx, loss, &value) == NYX_OK &&
            nyx_backward_run(ctx, loss, NULL, NULL) == NYX_OK;
  if (ok) {
    show("x w", y);
    printf("loss = %g\n", value);
    show("d loss / d w", nyx_tensor_grad(w));
  }
  nyx_tensor_release(loss); /* NULL is allowed */
  nyx_tensor_release(square);
  nyx_tensor_release(y);
  return ok;
}

int main(void) {
  const float x_data[] = {1, 2, 3, 4, 5, 6}, w_data[] = {0.5f, -1, 0.25f};
  nyx_tensor *x = NULL, *w = NULL;
  if (nyx_context_new(&ctx) != NYX_OK) return 1;
  bool ok = nyx_tensor_from_data(ctx, NYX_FLOAT32, 2, (int64_t[]){2, 3}, x_data, &x) ==
                NYX_OK &&
            nyx_tensor_from_data(ctx, NYX_FLOAT32, 2, (int64_t[]){3, 1}, w_data, &w) ==
                NYX_OK &&
            differentiate(x, w);

  /* Every failure is a status and a message; nothing is printed or ended for you. */
  if (!ok)
    printf("failed: %s\n", nyx_context_error(ctx));
  else if (apply("matmul", x, x) == NULL)
    printf("as expected: %s\n", nyx_context_error(ctx));
  nyx_tensor_release(x);
  nyx_tensor_release(w);
  nyx_context_free(ctx);
  return ok ? 0 : 1;
}
