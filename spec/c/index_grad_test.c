/* Ops that move elements: gradients against finite differences, and every allocation
 * failing in turn. Read next: tensors.h, index_test.c. */
#include "tensors.h"

/* Gradients: the weighted sum of the first output against central differences. */

typedef struct sample {
  nyx__op_id id;
  int n;
  nyx_tensor *in[4];
  bool wants[4];
  nyx_value attrs[4];
} sample;

static nyx_tensor *weighted(const sample *s, nyx_tensor *const *in) {
  nyx_tensor *y, *w, *product, *sum;
  must(nyx__applyn(ctx, s->id, in, s->n, s->attrs, &y));
  static double weights[MAX];
  for (int i = 0; i < nyx_tensor_numel(y); i++) weights[i] = 0.3 + fmod(i * 0.37, 1);
  w = make(NYX_FLOAT64, nyx_tensor_ndim(y), nyx_tensor_shape(y), weights);
  must(nyx__apply2(ctx, ID(mul), y, w, NULL, &product));
  must(nyx__apply1(ctx, ID(sum), product, NULL, &sum));
  nyx_tensor_release(y);
  nyx_tensor_release(w);
  nyx_tensor_release(product);
  return sum;
}

static bool gradient_fits(const sample *s, int which) {
  nyx_tensor *in[4], *y, *grad = NULL;
  for (int i = 0; i < s->n; i++) in[i] = s->in[i];
  must(nyx__apply1(ctx, ID(clone), s->in[which], NULL, &in[which]));
  must(nyx_tensor_set_requires_grad(ctx, in[which], true));
  y = weighted(s, in);
  nyx_status status = nyx_gradients(ctx, y, NULL, &in[which], 1, NULL, &grad);
  nyx_tensor_release(y);
  if (status != NYX_OK) printf("# %s\n", nyx_context_error(ctx));
  bool ok = status == NYX_OK && grad;
  double *x = nyx_tensor_data(in[which]), *g = ok ? read(grad) : NULL;
  nyx_context_set_grad_enabled(ctx, false);
  for (int i = 0; ok && i < nyx_tensor_numel(in[which]); i++) {
    double old = x[i], value[2];
    for (int side = 0; side < 2; side++) {
      x[i] = old + (side ? 1e-4 : -1e-4);
      y = weighted(s, in);
      must(nyx_tensor_item(ctx, y, &value[side]));
      nyx_tensor_release(y);
    }
    x[i] = old;
    double expected = (value[1] - value[0]) / 2e-4;
    if (fabs(expected - g[i]) <= 1e-6) continue;
    printf("# %s, input %d, element %d: %g, expected %g\n", nyx__op(s->id)->name, which,
           i, g[i], expected);
    ok = false;
  }
  nyx_context_set_grad_enabled(ctx, true);
  nyx_tensor_release(grad);
  nyx_tensor_release(in[which]);
  return ok;
}

static void gradients(void) {
  nyx_tensor *x = fresh(NYX_FLOAT64, SHAPE(3, 4)), *s = fresh(NYX_FLOAT64, SHAPE(3, 6));
  nyx_tensor *index = positions(4, SHAPE(3, 5)), *list = positions(4, SHAPE(6));
  nyx_tensor *mask = make(NYX_BOOL, SHAPE(4), VALUES(1, 0, 1, 1));
  nyx_tensor *rows = make(NYX_INT64, SHAPE(3), VALUES(2, 0, 2));
  nyx_tensor *v = fresh(NYX_FLOAT64, SHAPE(3, 4));
  double spread[12];
  for (int i = 0; i < 12; i++) spread[i] = i * 5 % 12;
  nyx_tensor *apart = make(NYX_FLOAT64, SHAPE(3, 4), spread);
  nyx_value none = NYX_NONE;
  sample samples[] = {
      {ID(gather), 2, {x, index}, {1}, {NYX_I(1)}},
      {ID(scatter), 3, {x, index, s}, {1, 0, 1}, {NYX_I(1), none}},
      {ID(scatter), 2, {x, index}, {1}, {NYX_I(1), NYX_F(2)}},
      {ID(scatter_backward), 2, {x, index}, {1}, {NYX_I(1)}},
      {ID(scatter_add), 3, {x, index, s}, {1, 0, 1}, {NYX_I(1)}},
      {ID(index_select), 2, {x, list}, {1}, {NYX_I(1)}},
      {ID(index_add), 3, {x, list, s}, {1, 0, 1}, {NYX_I(1), NYX_F(3)}},
      {ID(take), 2, {x, index}, {1}, {none}},
      {ID(index), 2, {x, rows}, {1}, {none}},
      {ID(index_put), 3, {x, v, rows}, {1, 1}, {NYX_I(false)}},
      {ID(index_put), 3, {x, v, rows}, {1, 1}, {NYX_I(true)}},
      {ID(masked_select), 2, {x, mask}, {1}, {none}},
      {ID(masked_fill), 2, {x, mask}, {1}, {NYX_F(1)}},
      {ID(masked_scatter), 3, {x, mask, s}, {1, 0, 1}, {none}},
      {ID(cat), 2, {x, s}, {1, 1}, {NYX_I(1)}},
      {ID(stack), 2, {x, v}, {1, 1}, {NYX_I(1)}},
      {ID(pad), 1, {x}, {1}, {LIST(1, -2, 2, 1), none, none}},
      {ID(pad), 1, {x}, {1}, {LIST(3, 2, 1, 0), NYX_S("reflect"), none}},
      {ID(pad), 1, {x}, {1}, {LIST(3, 2, -1, 4), NYX_S("replicate"), none}},
      {ID(pad), 1, {x}, {1}, {LIST(0, 2, 1, 3), NYX_S("circular"), none}},
      {ID(sort), 1, {apart}, {1}, {NYX_I(0), NYX_I(true), none}},
      {ID(topk), 1, {apart}, {1}, {NYX_I(2), none, none, none}},
      {ID(order_statistic), 1, {apart}, {1}, {NYX_I(2), none, none}},
      {ID(flip), 1, {x}, {1}, {LIST(1)}},
      {ID(roll), 1, {x}, {1}, {LIST(1, 2), LIST(0, 1)}},
      {ID(roll), 1, {x}, {1}, {LIST(5), none}},
      {ID(tile), 1, {x}, {1}, {LIST(2, 3, 2)}},
      {ID(repeat_interleave), 1, {x}, {1}, {NYX_I(3), none}},
      {ID(repeat_interleave), 1, {x}, {1}, {NYX_I(3), NYX_I(0)}},
      {ID(tril), 1, {x}, {1}, {NYX_I(1)}}};
  for (size_t i = 0; i < sizeof samples / sizeof *samples; i++)
    for (int k = 0; k < samples[i].n; k++)
      if (samples[i].wants[k])
        CHECK_AT(gradient_fits(&samples[i], k), nyx__op(samples[i].id)->name, "sample %d",
                 (int)i);
  nyx_tensor *done[] = {x, s, index, list, mask, rows, v, apart};
  for (int i = 0; i < 8; i++) nyx_tensor_release(done[i]);
}

/* Every allocation of a call and of its gradient fails once: a status, and nothing lost.
 */
static void without_memory(void) {
  nyx_tensor *x = scramble(fresh(NYX_FLOAT16, SHAPE(3, 60))), *wide;
  must(nyx__apply1(ctx, ID(cast), x, ATTRS(NYX_I(NYX_FLOAT32)), &wide));
  must(nyx_tensor_set_requires_grad(ctx, wide, true));
  nyx_tensor *index = scramble(positions(3, SHAPE(3, 60)));
  nyx_tensor *list = make(NYX_INT32, SHAPE(3), VALUES(2, 0, 1));
  nyx_tensor *mask = make(NYX_BOOL, SHAPE(3, 1), VALUES(1, 0, 1));
  nyx_value none = NYX_NONE;
  sample samples[] = {{ID(gather), 2, {wide, index}, {0}, {NYX_I(0)}},
                      {ID(scatter), 3, {wide, index, wide}, {0}, {NYX_I(0), none}},
                      {ID(scatter_backward), 2, {wide, index}, {0}, {NYX_I(0)}},
                      {ID(scatter_add), 3, {x, index, x}, {0}, {NYX_I(0)}},
                      {ID(index_select), 2, {wide, list}, {0}, {NYX_I(0)}},
                      {ID(index_add), 3, {wide, list, wide}, {0}, {NYX_I(0), NYX_F(3)}},
                      {ID(take), 2, {wide, index}, {0}, {none}},
                      {ID(index), 3, {wide, list, list}, {0}, {none}},
                      {ID(index_put), 3, {wide, wide, list}, {0}, {NYX_I(false)}},
                      {ID(masked_select), 2, {wide, mask}, {0}, {none}},
                      {ID(masked_scatter), 3, {wide, mask, wide}, {0}, {none}},
                      {ID(cat), 2, {wide, x}, {0}, {NYX_I(1)}},
                      {ID(pad), 1, {wide}, {0}, {LIST(3, 2), NYX_S("reflect"), none}},
                      {ID(sort), 1, {wide}, {0}, {NYX_I(1), none, none}},
                      {ID(topk), 1, {x}, {0}, {NYX_I(3), none, none, none}},
                      {ID(order_statistic), 1, {x}, {0}, {NYX_I(3), none, none}},
                      {ID(unique), 1, {x}, {0}, {none}},
                      {ID(searchsorted), 2, {x, wide}, {0}, {none}},
                      {ID(tile), 1, {wide}, {0}, {LIST(2, 3, 2)}},
                      {ID(roll), 1, {wide}, {0}, {LIST(5), none}},
                      {ID(nonzero), 1, {x}, {0}, {none}},
                      {ID(bernoulli), 1, {wide}, {0}, {NYX_F(0.5)}},
                      {ID(randperm), 0, {0}, {0}, {NYX_I(9), none}}};
  for (size_t i = 0; i < sizeof samples / sizeof *samples; i++) {
    sample *s = &samples[i];
    bool done = false;
    for (int64_t n = 0; !done && n < 400; n++) {
      nyx_memory_stats a, b;
      nyx_memory_get_stats(&a);
      nyx_tensor *y = NULL, *grad = NULL;
      nyx_memory_fail_after(n);
      nyx_status status = nyx__applyn(ctx, s->id, s->in, s->n, s->attrs, &y);
      if (status == NYX_OK && nyx_tensor_requires_grad(y))
        status = nyx_gradients(ctx, y, y, &wide, 1, NULL, &grad);
      nyx_memory_fail_after(-1);
      nyx_tensor_release(y);
      nyx_tensor_release(grad);
      nyx_memory_get_stats(&b);
      bool good = (status == NYX_OK || status == NYX_ERR_MEMORY) && a.live == b.live;
      if (!CHECK_AT(good, nyx__op(s->id)->name, "allocation %d: %s: %s, %d bytes lost",
                    (int)n, nyx_status_name(status), nyx_context_error(ctx),
                    (int)(b.live - a.live)))
        break;
      done = status == NYX_OK;
    }
    CHECK(done);
  }
  nyx_tensor *done[] = {x, wide, index, list, mask};
  for (int i = 0; i < 5; i++) nyx_tensor_release(done[i]);
}

int main(void) {
  must(nyx_context_new(&ctx));
  RUN(gradients);
  RUN(without_memory);
  nyx_context_free(ctx);
  return check_done();
}
