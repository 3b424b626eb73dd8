/* The public headers in C++17, as a game engine includes them: all of them parse without
 * warnings, link, and serve a small program. Read next: header_test.c. */
#include <nyx/nyx.h>

#include <cstdio>
#include <memory>
#include <vector>

namespace {

struct release {
  void operator()(nyx_context *ctx) const { nyx_context_free(ctx); }
  void operator()(nyx_tensor *t) const { nyx_tensor_release(t); }
};
using context = std::unique_ptr<nyx_context, release>;
using tensor = std::unique_ptr<nyx_tensor, release>;

int tests, failed;

void check(bool ok, const char *what) {
  std::printf("%sok %d - %s\n", ok ? "" : "not ", ++tests, what);
  if (!ok) failed++;
}

context make_context() {
  nyx_context *raw = nullptr;
  check(nyx_context_new(&raw) == NYX_OK, "a context");
  return context(raw);
}

tensor apply(nyx_context *ctx, const char *name, std::vector<nyx_tensor *> in,
             const nyx_value *attrs = nullptr) {
  nyx_tensor *out[NYX_MAX_OUTPUTS] = {};
  const nyx_op *op = nyx_op_find(name);
  check(op && nyx_apply(ctx, op, in.data(), static_cast<int>(in.size()), attrs, out) ==
                  NYX_OK,
        name);
  return tensor(out[0]);
}

}  // namespace

int main() {
  context ctx = make_context();
  const int64_t shape[] = {2, 3};
  const float values[] = {1, 2, 3, 4, 5, 6};
  nyx_tensor *raw = nullptr;
  check(nyx_tensor_from_data(ctx.get(), NYX_FLOAT32, 2, shape, values, &raw) == NYX_OK,
        "a tensor");
  tensor x(raw);
  check(nyx_tensor_set_requires_grad(ctx.get(), x.get(), true) == NYX_OK,
        "requires_grad");
  const int64_t dims[] = {1};
  const nyx_value attrs[] = {NYX_LIST(dims, 1), NYX_I(false)};
  tensor rows = apply(ctx.get(), "sum", {x.get()}, attrs);
  tensor squares = apply(ctx.get(), "mul", {rows.get(), rows.get()});
  tensor total = apply(ctx.get(), "sum", {squares.get()});
  double value = 0;
  check(nyx_tensor_item(ctx.get(), total.get(), &value) == NYX_OK && value == 36 + 225,
        "its value");
  check(nyx_backward_run(ctx.get(), total.get(), nullptr, nullptr) == NYX_OK, "backward");
  const nyx_tensor *g = nyx_tensor_grad(x.get());
  check(g && static_cast<float *>(nyx_tensor_data(g))[5] == 30, "its gradient");
  const nyx_value half[] = {NYX_NONE, NYX_F(0.5), NYX_S("sum")};
  check(!half[0].given && half[1].f == 0.5 && half[2].s[0] == 's', "values");
  std::printf("1..%d\n", tests);
  return failed ? 1 : 0;
}
