/* Transforms from C: duals, complex numbers, batches and gradients nested in one another,
 * what they refuse, changes in place, and every allocation failing in turn. The ops under
 * them are spec/op/transform_spec.lua. Read next: core/include/nyx/transform.h,
 * tensors.h. */
#include <nyx/transform.h>

#include "tensors.h"

static size_t live(void) {
  nyx_memory_stats s;
  nyx_memory_get_stats(&s);
  return s.live;
}

static nyx_tensor *vector(int64_t n, const double *values) {
  return make(NYX_FLOAT64, 1, &n, values);
}

static nyx_tensor *eat(nyx__op_id id, nyx_tensor *a, nyx_tensor *b) {
  nyx_tensor *out = apply(id, a, b, NULL, NULL);
  nyx_tensor_release(a);
  nyx_tensor_release(b);
  return out;
}

static nyx_tensor *keep(nyx_tensor *t) {
  return nyx_tensor_retain(t);
}

/* x * x * x, taking x. */
static nyx_tensor *cube(nyx_tensor *x) {
  nyx_tensor *square = apply(ID(mul), x, x, NULL, NULL);
  return eat(ID(mul), square, x);
}

static nyx_tensor *dual(nyx_level level, nyx_tensor *value, nyx_tensor *tangent) {
  nyx_tensor *out;
  must(nyx_dual_lift(ctx, level, value, tangent, &out));
  return out;
}

static nyx_tensor *entries(nyx_level level, nyx_tensor *t, int64_t dim) {
  nyx_tensor *out;
  must(nyx_batch_lift(ctx, level, t, dim, &out));
  return out;
}

static nyx_tensor *joined(nyx_level level, nyx_tensor *t, int64_t dim) {
  nyx_tensor *out;
  must(nyx_batch_lower(ctx, level, t, dim, &out));
  return out;
}

/* The tangent of t, which is released; the value is checked. */
static nyx_tensor *tangent_of(nyx_level level, nyx_tensor *t) {
  nyx_tensor *value, *tangent;
  must(nyx_dual_lower(ctx, level, t, &value, &tangent));
  CHECK(value != NULL);
  nyx_tensor_release(value);
  nyx_tensor_release(t);
  return tangent;
}

/* Duals */

static void a_dual_has_value_and_tangent(void) {
  size_t before = live();
  nyx_level level;
  nyx_tensor *x = vector(2, VALUES(2, 3)), *v = vector(2, VALUES(1, 10));
  nyx_tensor *value, *tangent;
  must(nyx_dual_begin(ctx, &level));
  CHECK_INT(nyx_transform_depth(ctx), 1);
  nyx_tensor *y = cube(dual(level, x, v));
  CHECK(nyx_tensor_is_lifted(y) && !nyx_tensor_is_lifted(x));
  CHECK_INT(nyx_tensor_ndim(y), 1);
  must(nyx_dual_lower(ctx, level, y, &value, &tangent));
  CHECK(holds(value, SHAPE(2), VALUES(8, 27)));
  CHECK(holds(tangent, SHAPE(2), VALUES(12, 270)));
  must(nyx_dual_lower(ctx, level, x, &value, &tangent)); /* no tangent: zero */
  CHECK(tangent == NULL && holds(value, SHAPE(2), VALUES(2, 3)));
  nyx_tensor_release(y);
  nyx_transform_end(ctx, level);
  CHECK_INT(nyx_transform_depth(ctx), 0);
  nyx_tensor_release(x);
  nyx_tensor_release(v);
  CHECK_INT(live(), before);
}

static void duals_of_duals_are_second_derivatives(void) {
  size_t before = live();
  nyx_level outer, inner;
  nyx_tensor *x = vector(2, VALUES(2, 3)), *one = vector(2, VALUES(1, 1));
  must(nyx_dual_begin(ctx, &outer));
  nyx_tensor *a = dual(outer, x, one);
  must(nyx_dual_begin(ctx, &inner));
  nyx_tensor *first = tangent_of(inner, cube(dual(inner, a, one)));
  nyx_transform_end(ctx, inner);
  CHECK(holds(tangent_of(outer, first), SHAPE(2), VALUES(12, 18)));
  nyx_transform_end(ctx, outer);
  nyx_tensor_release(a);
  nyx_tensor_release(x);
  nyx_tensor_release(one);
  CHECK_INT(live(), before);
}

static void changes_in_place_change_tangents(void) {
  size_t before = live();
  nyx_level level;
  nyx_tensor *x = vector(2, VALUES(2, 3)), *v = vector(2, VALUES(1, 10));
  nyx_tensor *outside = vector(2, VALUES(5, 7)), *value, *tangent;
  must(nyx_dual_begin(ctx, &level));
  nyx_tensor *a = dual(level, x, v), *plain = vector(2, VALUES(5, 7));
  nyx_tensor *y = apply(ID(clone), a, NULL, NULL, NULL);
  nyx_tensor *out[1] = {y};
  must(nyx_apply(ctx, nyx__op(ID(mul)), (nyx_tensor *[]){y, a}, 2, NULL, out));
  must(nyx_dual_lower(ctx, level, y, &value, &tangent));
  CHECK(holds(value, SHAPE(2), VALUES(4, 9)));
  CHECK(holds(tangent, SHAPE(2), VALUES(4, 60)));
  CHECK(holds(keep(v), SHAPE(2), VALUES(1, 10))); /* a copy's tangent is a copy */
  out[0] = plain;                                 /* becomes a dual */
  must(nyx_apply(ctx, nyx__op(ID(add)), (nyx_tensor *[]){plain, a}, 2, NULL, out));
  must(nyx_dual_lower(ctx, level, plain, &value, &tangent));
  CHECK(holds(value, SHAPE(2), VALUES(7, 10)));
  CHECK(holds(tangent, SHAPE(2), VALUES(1, 10)));
  out[0] = outside; /* would be a dual for ever */
  CHECK_STATUS(
      nyx_apply(ctx, nyx__op(ID(add)), (nyx_tensor *[]){outside, a}, 2, NULL, out),
      NYX_ERR_STATE);
  nyx_tensor_release(y);
  nyx_tensor_release(a);
  nyx_transform_end(ctx, level);
  CHECK(holds(outside, SHAPE(2), VALUES(5, 7)));
  nyx_tensor_release(plain);
  nyx_tensor_release(x);
  nyx_tensor_release(v);
  CHECK_INT(live(), before);
}

/* Complex numbers */

#define STEP 0x1p-66

static nyx_tensor *complex_number(nyx_level level, nyx_tensor *real, nyx_tensor *v) {
  nyx_tensor *h = make(NYX_FLOAT64, 0, NULL, VALUES(STEP)), *out;
  nyx_tensor *imaginary = eat(ID(mul), keep(v), h);
  must(nyx_complex_lift(ctx, level, real, imaginary, &out));
  nyx_tensor_release(imaginary);
  return out;
}

/* The imaginary part of t, which is released, over STEP; the real part is checked. */
static void derivative_is(nyx_level level, nyx_tensor *t, int n, const double *value,
                          const double *derivative) {
  nyx_tensor *real, *imaginary;
  must(nyx_complex_lower(ctx, level, t, &real, &imaginary));
  for (int i = 0; i < n; i++) {
    CHECK_NEAR(read(real)[i], value[i], 1e-15 * fabs(value[i]));
    CHECK_NEAR(read(imaginary)[i] / STEP, derivative[i], 1e-14 * fabs(derivative[i]));
  }
  nyx_tensor_release(real);
  nyx_tensor_release(imaginary);
  nyx_tensor_release(t);
}

static void the_complex_step_differentiates(void) {
  size_t before = live();
  nyx_level level;
  nyx_tensor *x = vector(2, VALUES(-2, 3)), *v = vector(2, VALUES(1, 10));
  nyx_tensor *w = make(NYX_FLOAT64, SHAPE(2, 2), VALUES(1, 2, 3, 4));
  must(nyx_complex_begin(ctx, &level));
  nyx_tensor *z = complex_number(level, x, v), *three = vector(1, VALUES(3));
  derivative_is(level, cube(keep(z)), 2, VALUES(-8, 27), VALUES(12, 270));
  derivative_is(level, eat(ID(pow), keep(z), three), 2, VALUES(-8, 27), VALUES(12, 270));
  derivative_is(level, eat(ID(matmul), keep(w), keep(z)), 2, VALUES(4, 6),
                VALUES(21, 43));
  derivative_is(level, eat(ID(sum), keep(z), NULL), 1, VALUES(1), VALUES(11));
  derivative_is(level, eat(ID(atan), keep(z), NULL), 2, VALUES(atan(-2), atan(3)),
                VALUES(0.2, 1));
  derivative_is(level, eat(ID(relu), keep(z), NULL), 2, VALUES(0, 3), VALUES(0, 10));
  nyx_tensor *plain; /* what is no float has no imaginary part */
  nyx_tensor *below = eat(ID(lt), keep(z), keep(x));
  CHECK(!nyx_tensor_is_lifted(below));
  must(nyx_tensor_detach(ctx, z, &plain)); /* a change of history, not of the value */
  derivative_is(level, plain, 2, VALUES(-2, 3), VALUES(1, 10));
  nyx_transform_end(ctx, level);
  nyx_tensor *all[] = {x, v, w, z, below};
  for (int i = 0; i < 5; i++) nyx_tensor_release(all[i]);
  CHECK_INT(live(), before);
}

static void complex_numbers_change_in_place(void) {
  size_t before = live();
  nyx_level level;
  nyx_tensor *x = vector(2, VALUES(2, 3)), *v = vector(2, VALUES(1, 10));
  must(nyx_complex_begin(ctx, &level));
  nyx_tensor *z = complex_number(level, x, v), *plain = vector(2, VALUES(5, 7));
  nyx_tensor *out[1] = {plain};
  must(nyx_apply(ctx, nyx__op(ID(mul)), (nyx_tensor *[]){plain, z}, 2, NULL, out));
  derivative_is(level, plain, 2, VALUES(10, 21), VALUES(5, 70)); /* is complex now */
  nyx_tensor_release(z);
  nyx_transform_end(ctx, level);
  CHECK(holds(keep(x), SHAPE(2), VALUES(2, 3)));
  nyx_tensor_release(x);
  nyx_tensor_release(v);
  CHECK_INT(live(), before);
}

/* Both parts are recorded like any tensor: the gradient of d/dx sin(x) is -sin(x). And
 * a level of duals, or of batches, outside of complex numbers and inside. */
static void complex_numbers_nest(void) {
  size_t before = live();
  nyx_level level, other;
  nyx_tensor *x = vector(2, VALUES(0.5, 2)), *one = vector(2, VALUES(1, 1));
  nyx_tensor *real, *imaginary, *g;
  must(nyx_tensor_set_requires_grad(ctx, x, true));
  must(nyx_complex_begin(ctx, &level));
  nyx_tensor *z = complex_number(level, x, one);
  nyx_tensor *s = eat(ID(sin), z, NULL);
  must(nyx_complex_lower(ctx, level, s, &real, &imaginary));
  nyx_transform_end(ctx, level);
  must(nyx_gradients(ctx, imaginary, one, &x, 1, NULL, &g));
  CHECK_NEAR(read(g)[0] / STEP, -sin(0.5), 1e-15);
  CHECK_NEAR(read(g)[1] / STEP, -sin(2), 1e-15);
  nyx_tensor *recorded[] = {real, imaginary, s, g};
  for (int i = 0; i < 4; i++) nyx_tensor_release(recorded[i]);
  must(nyx_tensor_set_requires_grad(ctx, x, false));
  for (int outside = 0; outside < 2; outside++) { /* the tangent of d/dx x^3 is 6 x */
    must(outside ? nyx_dual_begin(ctx, &other) : nyx_complex_begin(ctx, &level));
    must(outside ? nyx_complex_begin(ctx, &level) : nyx_dual_begin(ctx, &other));
    nyx_tensor *a = outside ? dual(other, x, one) : complex_number(level, x, one);
    nyx_tensor *b = outside ? complex_number(level, a, one) : dual(other, a, one);
    nyx_tensor *y = cube(b), *tangent;
    nyx_tensor_release(a);
    must(nyx_complex_lower(ctx, level, y, &real, &imaginary));
    must(nyx_dual_lower(ctx, other, imaginary, &g, &tangent));
    CHECK_NEAR(read(g)[1] / STEP, 12, 1e-13);
    CHECK_NEAR(read(tangent)[1] / STEP, 12, 1e-13);
    nyx_tensor *all[] = {y, real, imaginary, g, tangent};
    for (int i = 0; i < 5; i++) nyx_tensor_release(all[i]);
    nyx_transform_end(ctx, outside ? other : level);
  }
  nyx_tensor_release(x);
  nyx_tensor_release(one);
  CHECK_INT(live(), before);
}

static void what_the_complex_step_refuses(void) {
  size_t before = live();
  nyx_level level;
  nyx_tensor *x = vector(2, VALUES(1, 2)), *w = vector(2, VALUES(3, 4)), *g = NULL;
  nyx_tensor *half = make(NYX_FLOAT32, SHAPE(2), VALUES(1, 2)), *a, *b, *out = NULL;
  must(nyx_tensor_set_requires_grad(ctx, w, true));
  must(nyx_complex_begin(ctx, &level));
  nyx_tensor *z = complex_number(level, x, x);
  CHECK_STATUS(nyx_dual_lift(ctx, level, x, x, &out), NYX_ERR_STATE); /* another kind */
  CHECK_STATUS(nyx_dual_lower(ctx, level, z, &a, &b), NYX_ERR_STATE);
  CHECK_STATUS(nyx_complex_lift(ctx, level, half, half, &out), NYX_ERR_DTYPE);
  CHECK_STATUS(nyx_complex_lift(ctx, level, x, half, &out), NYX_ERR_SHAPE);
  CHECK(out == NULL);
  const nyx_value dim = NYX_I(0), dtype = NYX_I(NYX_FLOAT32);
  CHECK(fails(ID(softmax), z, NULL, NULL, &dim, NYX_ERR_UNSUPPORTED,
              "op 'softmax' has no rule"));
  CHECK(fails(ID(cast), z, NULL, NULL, &dtype, NYX_ERR_DTYPE, "expected float64"));
  double value[2];
  CHECK_STATUS(nyx_tensor_read(ctx, z, NYX_FLOAT64, value, sizeof value), NYX_ERR_STATE);
  CHECK_CONTAINS(nyx_context_error(ctx), "complex step");
  nyx_tensor *y = eat(ID(sum), eat(ID(mul), keep(w), keep(z)), NULL);
  CHECK_STATUS(nyx_tensor_item(ctx, y, value), NYX_ERR_STATE);
  CHECK_STATUS(nyx_gradients(ctx, y, NULL, &w, 1, NULL, &g), NYX_ERR_UNSUPPORTED);
  CHECK_CONTAINS(nyx_context_error(ctx), "complex step");
  CHECK_STATUS(nyx_backward_run(ctx, y, NULL, NULL), NYX_ERR_STATE);
  CHECK(g == NULL && nyx_tensor_grad(w) == NULL);
  nyx_transform_end(ctx, level);
  CHECK_STATUS(nyx_complex_lower(ctx, level, z, &a, &b), NYX_ERR_STATE);
  nyx_tensor *all[] = {x, w, half, z, y};
  for (int i = 0; i < 5; i++) nyx_tensor_release(all[i]);
  CHECK_INT(live(), before);
}

/* Batches */

static void a_batch_has_entries(void) {
  size_t before = live();
  nyx_level level;
  nyx_tensor *x = make(NYX_FLOAT64, SHAPE(2, 3), VALUES(1, 2, 3, 4, 5, 6));
  nyx_tensor *w = vector(2, VALUES(10, 100));
  must(nyx_batch_begin(ctx, 3, &level));
  nyx_tensor *a = entries(level, x, 1); /* columns */
  CHECK_INT(nyx_tensor_ndim(a), 1);
  CHECK_INT(nyx_tensor_shape(a)[0], 2);
  nyx_tensor *y = apply(ID(mul), a, w, NULL, NULL);
  CHECK(holds(joined(level, y, 0), SHAPE(3, 2), VALUES(10, 400, 20, 500, 30, 600)));
  CHECK(holds(joined(level, y, 1), SHAPE(2, 3), VALUES(10, 20, 30, 400, 500, 600)));
  CHECK(holds(joined(level, y, -1), SHAPE(2, 3), VALUES(10, 20, 30, 400, 500, 600)));
  CHECK(holds(joined(level, w, 0), SHAPE(3, 2), VALUES(10, 100, 10, 100, 10, 100)));
  nyx_tensor *sum = apply(ID(sum), y, NULL, NULL, NULL);
  CHECK_INT(nyx_tensor_ndim(sum), 0);
  CHECK(holds(joined(level, sum, 0), SHAPE(3), VALUES(410, 520, 630)));
  nyx_tensor *all[] = {sum, y, a};
  for (int i = 0; i < 3; i++) nyx_tensor_release(all[i]);
  nyx_transform_end(ctx, level);
  nyx_tensor_release(x);
  nyx_tensor_release(w);
  CHECK_INT(live(), before);
}

static void batches_nest(void) {
  size_t before = live();
  nyx_level rows, columns;
  nyx_tensor *x = vector(2, VALUES(1, 2)), *y = vector(3, VALUES(10, 20, 30));
  must(nyx_batch_begin(ctx, 2, &rows));
  nyx_tensor *a = entries(rows, x, 0);
  must(nyx_batch_begin(ctx, 3, &columns));
  nyx_tensor *b = entries(columns, y, 0);
  nyx_tensor *sum = eat(ID(add), keep(a), b);
  CHECK_INT(nyx_tensor_ndim(sum), 0);
  nyx_tensor *row = joined(columns, sum, 0);
  nyx_transform_end(ctx, columns);
  CHECK_INT(nyx_tensor_ndim(row), 1);
  CHECK(holds(joined(rows, row, 0), SHAPE(2, 3), VALUES(11, 21, 31, 12, 22, 32)));
  nyx_tensor_release(row);
  nyx_tensor_release(sum);
  nyx_tensor_release(a);
  nyx_transform_end(ctx, rows);
  nyx_tensor_release(x);
  nyx_tensor_release(y);
  CHECK_INT(live(), before);
}

static void entries_change_in_place(void) {
  size_t before = live();
  nyx_level level;
  nyx_tensor *x = vector(3, VALUES(1, 2, 3));
  must(nyx_batch_begin(ctx, 3, &level));
  nyx_tensor *a = entries(level, x, 0);
  nyx_tensor *y = apply(ID(clone), a, NULL, NULL, NULL), *out[1] = {y};
  must(nyx_apply(ctx, nyx__op(ID(add)), (nyx_tensor *[]){y, a}, 2, NULL, out));
  CHECK(holds(joined(level, y, 0), SHAPE(3), VALUES(2, 4, 6)));
  CHECK(holds(keep(x), SHAPE(3), VALUES(1, 2, 3)));
  nyx_tensor_release(y);
  nyx_tensor_release(a);
  nyx_transform_end(ctx, level);
  nyx_tensor_release(x);
  CHECK_INT(live(), before);
}

/* Two random numbers for three entries: whether each draws its own, and all the same. */
static nyx_status draw(nyx_randomness randomness, bool *own, bool *same) {
  nyx_level level;
  nyx_tensor *numbers = NULL, *all = NULL;
  const int64_t two[1] = {2};
  const nyx_value attrs[] = {NYX_LIST(two, 1), NYX_NONE};
  must(nyx_batch_begin(ctx, 3, &level));
  must(nyx_batch_randomness(ctx, level, randomness));
  nyx_status status = nyx__applyn(ctx, ID(rand), NULL, 0, attrs, &numbers);
  if (status == NYX_OK) {
    must(nyx_batch_lower(ctx, level, numbers, 0, &all));
    CHECK_INT(nyx_tensor_ndim(all), 2);
    const float *v = (const float *)nyx_tensor_data(all);
    ptrdiff_t step = (ptrdiff_t)nyx_tensor_stride(all)[0];
    *own = v[0] != v[step] && v[0] != v[2 * step] && v[0] != v[1];
    *same = v[0] == v[step] && v[1] == v[step + 1] && v[1] == v[2 * step + 1];
  }
  nyx_tensor_release(numbers);
  nyx_tensor_release(all);
  nyx_transform_end(ctx, level);
  return status;
}

static void random_numbers_of_entries(void) {
  size_t before = live();
  bool own = false, same = false;
  CHECK_INT(draw(NYX_RANDOMNESS_ERROR, &own, &same), NYX_ERR_STATE);
  CHECK(strstr(nyx_context_error(ctx), "rand: a random op inside vmap"));
  CHECK_INT(draw(NYX_RANDOMNESS_DIFFERENT, &own, &same), NYX_OK);
  CHECK(own && !same);
  CHECK_INT(draw(NYX_RANDOMNESS_SAME, &own, &same), NYX_OK);
  CHECK(same && !own);
  CHECK_INT(nyx_batch_randomness(ctx, 12345, NYX_RANDOMNESS_SAME), NYX_ERR_STATE);
  CHECK_INT(live(), before);
}

/* Gradients inside */

/* The gradient of sum(x^3) for every entry of a batch: 3 x^2. NULL: a call failed. */
static nyx_status per_entry(nyx_tensor *x, nyx_tensor **result) {
  nyx_level level;
  nyx_tensor *t[6] = {NULL}, *in[2];
  *result = NULL;
  nyx_status status = nyx_batch_begin(ctx, nyx_tensor_shape(x)[0], &level);
  if (status != NYX_OK) return status;
  status = nyx_batch_lift(ctx, level, x, 0, &t[0]);
  if (status == NYX_OK) status = nyx_transform_variable(ctx, t[0], &t[1]);
  for (int i = 2; status == NYX_OK && i < 4; i++) {
    in[0] = t[i - 1];
    in[1] = t[1];
    status = nyx__applyn(ctx, ID(mul), in, 2, NULL, &t[i]);
  }
  if (status == NYX_OK) status = nyx__applyn(ctx, ID(sum), &t[3], 1, NULL, &t[4]);
  if (status == NYX_OK) status = nyx_gradients(ctx, t[4], NULL, &t[1], 1, NULL, &t[5]);
  if (status == NYX_OK) status = nyx_batch_lower(ctx, level, t[5], 0, result);
  nyx_transform_end(ctx, level);
  for (int i = 0; i < 6; i++) nyx_tensor_release(t[i]);
  return status;
}

static void gradients_of_entries(void) {
  size_t before = live();
  nyx_tensor *x = make(NYX_FLOAT64, SHAPE(2, 2), VALUES(1, 2, 3, 4)), *g;
  must(per_entry(x, &g));
  CHECK(holds(g, SHAPE(2, 2), VALUES(3, 12, 27, 48)));
  nyx_tensor_release(x);
  CHECK_INT(live(), before);
}

/* The derivative along v of the gradient of sum(x^3), for every entry: 6 x v. */
static nyx_status products(nyx_tensor *x, nyx_tensor *v, nyx_tensor **result) {
  nyx_level batch, dual_level;
  nyx_tensor *t[10] = {NULL}, *in[2];
  nyx_backward_options create = {.create_graph = true};
  *result = NULL;
  nyx_status status = nyx_batch_begin(ctx, nyx_tensor_shape(x)[0], &batch);
  if (status != NYX_OK) return status;
  status = nyx_dual_begin(ctx, &dual_level);
  if (status == NYX_OK) status = nyx_batch_lift(ctx, batch, x, 0, &t[0]);
  if (status == NYX_OK) status = nyx_dual_lift(ctx, dual_level, t[0], v, &t[1]);
  if (status == NYX_OK) status = nyx_transform_variable(ctx, t[1], &t[2]);
  for (int i = 3; status == NYX_OK && i < 5; i++) {
    in[0] = t[i - 1];
    in[1] = t[2];
    status = nyx__applyn(ctx, ID(mul), in, 2, NULL, &t[i]);
  }
  if (status == NYX_OK) status = nyx__applyn(ctx, ID(sum), &t[4], 1, NULL, &t[5]);
  if (status == NYX_OK) status = nyx_gradients(ctx, t[5], NULL, &t[2], 1, &create, &t[6]);
  if (status == NYX_OK) status = nyx_transform_result(ctx, t[6], &t[2], 1, &t[9]);
  if (status == NYX_OK) status = nyx_dual_lower(ctx, dual_level, t[9], &t[7], &t[8]);
  if (status == NYX_OK) status = nyx_batch_lower(ctx, batch, t[8], 0, result);
  nyx_transform_end(ctx, batch); /* with all inside */
  for (int i = 0; i < 10; i++) nyx_tensor_release(t[i]);
  return status;
}

static void derivatives_of_gradients_of_entries(void) {
  size_t before = live();
  nyx_tensor *x = make(NYX_FLOAT64, SHAPE(2, 2), VALUES(1, 2, 3, 4)), *g;
  nyx_tensor *v = vector(2, VALUES(1, 10));
  must(products(x, v, &g));
  CHECK(holds(g, SHAPE(2, 2), VALUES(6, 120, 18, 240)));
  nyx_tensor_release(x);
  nyx_tensor_release(v);
  CHECK_INT(live(), before);
}

/* Softmax has its forward mode from its gradient; twice, in a batch of directions. */
static nyx_status twice_forward(nyx_tensor *x, nyx_tensor *v, nyx_tensor **result) {
  nyx_level batch[2], duals[2];
  nyx_tensor *t[9] = {NULL};
  int64_t n = nyx_tensor_shape(v)[0];
  *result = NULL;
  nyx_status status = nyx_batch_begin(ctx, n, &batch[0]);
  if (status != NYX_OK) return status;
  status = nyx_dual_begin(ctx, &duals[0]);
  if (status == NYX_OK) status = nyx_batch_begin(ctx, n, &batch[1]);
  if (status == NYX_OK) status = nyx_dual_begin(ctx, &duals[1]);
  if (status == NYX_OK) status = nyx_batch_lift(ctx, batch[0], v, 0, &t[0]);
  if (status == NYX_OK) status = nyx_dual_lift(ctx, duals[0], x, t[0], &t[1]);
  if (status == NYX_OK) status = nyx_batch_lift(ctx, batch[1], v, 0, &t[2]);
  if (status == NYX_OK) status = nyx_dual_lift(ctx, duals[1], t[1], t[2], &t[3]);
  if (status == NYX_OK) status = nyx__apply1(ctx, ID(softmax), t[3], NULL, &t[4]);
  if (status == NYX_OK) status = nyx_dual_lower(ctx, duals[1], t[4], &t[5], &t[6]);
  if (status == NYX_OK) status = nyx_batch_lower(ctx, batch[1], t[6], 0, &t[7]);
  nyx_tensor_release(t[5]);
  t[5] = NULL;
  if (status == NYX_OK) status = nyx_dual_lower(ctx, duals[0], t[7], &t[5], &t[8]);
  if (status == NYX_OK) status = nyx_batch_lower(ctx, batch[0], t[8], 0, result);
  nyx_transform_end(ctx, batch[0]);
  for (int i = 0; i < 9; i++) nyx_tensor_release(t[i]);
  return status;
}

static void second_derivatives_of_softmax(void) {
  size_t before = live();
  const double x[] = {0.5, -0.25};
  double p = 1 / (1 + exp(x[1] - x[0])), d = p * (1 - p), dd = d * (1 - 2 * p);
  nyx_tensor *value = vector(2, x), *h;
  nyx_tensor *basis = make(NYX_FLOAT64, SHAPE(2, 2), VALUES(1, 0, 0, 1));
  must(twice_forward(value, basis, &h));
  const double *got = read(h); /* h[i][j][k] = d2 softmax_k / dx_i dx_j */
  for (int k = 0; k < 8; k++) {
    bool same_sign = (k >> 2) == ((k >> 1) & 1);
    double sign = same_sign ? 1 : -1;
    CHECK_NEAR(got[k], (k & 1 ? -dd : dd) * sign, 1e-14);
  }
  nyx_tensor_release(h);
  nyx_tensor_release(basis);
  nyx_tensor_release(value);
  CHECK_INT(live(), before);
}

/* Refusals */

static void closed_levels(void) {
  size_t before = live();
  nyx_level level, other;
  nyx_tensor *x = vector(2, VALUES(1, 2)), *out = NULL, *tangent = NULL;
  must(nyx_dual_begin(ctx, &level));
  nyx_tensor *a = dual(level, x, x);
  CHECK_STATUS(nyx_batch_lift(ctx, level, x, 0, &out), NYX_ERR_STATE); /* another kind */
  nyx_transform_end(ctx, level);
  CHECK(fails(ID(neg), a, NULL, NULL, NULL, NYX_ERR_STATE,
              "after the transform has ended"));
  CHECK_STATUS(nyx_dual_lower(ctx, level, a, &out, &tangent), NYX_ERR_STATE);
  CHECK(out == NULL && tangent == NULL);
  CHECK_STATUS(nyx_dual_lift(ctx, level, x, x, &out), NYX_ERR_STATE);
  CHECK(out == NULL);
  must(nyx_dual_begin(ctx, &other)); /* a new level is not the old one */
  CHECK(other != level);
  CHECK(fails(ID(neg), a, NULL, NULL, NULL, NYX_ERR_STATE,
              "after the transform has ended"));
  nyx_transform_end(ctx, other);
  nyx_tensor_release(a);
  nyx_tensor_release(x);
  CHECK_INT(live(), before);
}

static void too_many_levels(void) {
  nyx_level level[17];
  for (int i = 0; i < 16; i++) must(nyx_dual_begin(ctx, &level[i]));
  CHECK_STATUS(nyx_batch_begin(ctx, 2, &level[16]), NYX_ERR_STATE);
  CHECK_CONTAINS(nyx_context_error(ctx), "16 transforms");
  nyx_transform_end(ctx, level[3]); /* with those inside */
  CHECK_INT(nyx_transform_depth(ctx), 3);
  nyx_transform_end(ctx, level[0]);
  CHECK_INT(nyx_transform_depth(ctx), 0);
  CHECK_STATUS(nyx_batch_begin(ctx, -1, &level[0]), NYX_ERR_SHAPE);
  CHECK_INT(nyx_transform_depth(ctx), 0);
}

static void wrong_parts(void) {
  size_t before = live();
  nyx_level duals, batch;
  nyx_tensor *x = vector(2, VALUES(1, 2)), *w = vector(3, VALUES(1, 2, 3));
  nyx_tensor *number = make(NYX_FLOAT64, 0, NULL, VALUES(1));
  nyx_tensor *whole = make(NYX_INT64, SHAPE(2), VALUES(1, 2)), *out = NULL;
  must(nyx_dual_begin(ctx, &duals));
  CHECK_STATUS(nyx_dual_lift(ctx, duals, x, w, &out), NYX_ERR_SHAPE);
  CHECK(out == NULL);
  CHECK_STATUS(nyx_dual_lift(ctx, duals, whole, whole, &out), NYX_ERR_DTYPE);
  must(nyx_batch_begin(ctx, 2, &batch));
  CHECK_STATUS(nyx_batch_lift(ctx, batch, w, 0, &out), NYX_ERR_SHAPE);
  CHECK_CONTAINS(nyx_context_error(ctx), "(3)");
  CHECK_STATUS(nyx_batch_lift(ctx, batch, number, 0, &out), NYX_ERR_SHAPE);
  CHECK(nyx_batch_lift(ctx, batch, x, 1, &out) != NYX_OK);
  CHECK(out == NULL);
  nyx_transform_end(ctx, duals);
  nyx_tensor *all[] = {x, w, number, whole};
  for (int i = 0; i < 4; i++) nyx_tensor_release(all[i]);
  CHECK_INT(live(), before);
}

static void what_a_batch_refuses(void) {
  size_t before = live();
  nyx_level level;
  nyx_tensor *x = vector(2, VALUES(1, 2)), *w = vector(2, VALUES(3, 4)), *g = NULL;
  must(nyx_tensor_set_requires_grad(ctx, w, true));
  must(nyx_batch_begin(ctx, 2, &level));
  nyx_tensor *a = entries(level, x, 0);
  double value = 0;
  CHECK_STATUS(nyx_tensor_item(ctx, a, &value), NYX_ERR_STATE);
  CHECK_CONTAINS(nyx_context_error(ctx), "a value for every entry");
  CHECK_STATUS(nyx_tensor_read(ctx, a, NYX_FLOAT64, &value, sizeof value), NYX_ERR_STATE);
  nyx_tensor *out[1] = {x}; /* x is the same for all */
  CHECK_STATUS(nyx_apply(ctx, nyx__op(ID(mul)), (nyx_tensor *[]){x, a}, 2, NULL, out),
               NYX_ERR_STATE);
  CHECK(holds(keep(x), SHAPE(2), VALUES(1, 2)));
  nyx_tensor *y = eat(ID(sum), apply(ID(mul), a, w, NULL, NULL), NULL);
  CHECK_STATUS(nyx_gradients(ctx, y, NULL, &w, 1, NULL, &g), NYX_ERR_STATE);
  CHECK_CONTAINS(nyx_context_error(ctx), "same for all entries");
  CHECK(g == NULL);
  CHECK_STATUS(nyx_backward_run(ctx, y, NULL, NULL), NYX_ERR_STATE);
  CHECK(nyx_tensor_grad(w) == NULL);
  nyx_tensor_release(y);
  nyx_tensor_release(a);
  nyx_transform_end(ctx, level);
  nyx_tensor_release(x);
  nyx_tensor_release(w);
  CHECK_INT(live(), before);
}

/* A lifted tensor that outlives the context's level, and one that nobody lowers. */
static void lifted_tensors_may_be_dropped(void) {
  size_t before = live();
  nyx_level outer, inner;
  nyx_tensor *x = vector(2, VALUES(1, 2));
  must(nyx_dual_begin(ctx, &outer));
  nyx_tensor *a = dual(outer, x, x);
  must(nyx_batch_begin(ctx, 2, &inner));
  nyx_tensor *b = eat(ID(mul), entries(inner, a, 0), keep(a));
  nyx_transform_end(ctx, outer);
  nyx_tensor_release(a);
  nyx_tensor_release(x);
  CHECK(nyx_tensor_is_lifted(b));
  nyx_tensor_release(b);
  CHECK_INT(live(), before);
}

/* Memory */

typedef nyx_status (*job)(nyx_tensor *x, nyx_tensor *v, nyx_tensor **out);

static nyx_status per_entry_of(nyx_tensor *x, nyx_tensor *v, nyx_tensor **out) {
  (void)v;
  return per_entry(x, out);
}

/* A dual written in place, and a batch. */
static nyx_status written(nyx_tensor *x, nyx_tensor *v, nyx_tensor **result) {
  nyx_level level[2];
  nyx_tensor *t[5] = {NULL}, *out[1];
  *result = NULL;
  nyx_status status = nyx_batch_begin(ctx, nyx_tensor_shape(x)[0], &level[0]);
  if (status != NYX_OK) return status;
  status = nyx_dual_begin(ctx, &level[1]);
  if (status == NYX_OK) status = nyx_batch_lift(ctx, level[0], x, 0, &t[0]);
  if (status == NYX_OK) status = nyx_dual_lift(ctx, level[1], t[0], v, &t[1]);
  if (status == NYX_OK) status = nyx__apply1(ctx, ID(exp), t[1], NULL, &t[2]);
  out[0] = t[2];
  if (status == NYX_OK)
    status = nyx_apply(ctx, nyx__op(ID(mul)), (nyx_tensor *[]){t[2], t[1]}, 2, NULL, out);
  if (status == NYX_OK) status = nyx_dual_lower(ctx, level[1], t[2], &t[3], &t[4]);
  if (status == NYX_OK) status = nyx_batch_lower(ctx, level[0], t[4], 0, result);
  nyx_transform_end(ctx, level[0]);
  for (int i = 0; i < 5; i++) nyx_tensor_release(t[i]);
  return status;
}

/* Rows of one, two and three inputs, a product and a linear op at a complex level, what
 * comes out written in place. */
static nyx_status complex_ops(nyx_tensor *x, nyx_tensor *v, nyx_tensor **result) {
  nyx_level level;
  nyx_tensor *t[8] = {NULL}, *out[1], *last[2] = {NULL};
  *result = NULL;
  nyx_status status = nyx_complex_begin(ctx, &level);
  if (status != NYX_OK) return status;
  status = nyx_complex_lift(ctx, level, x, x, &t[0]);
  if (status == NYX_OK) status = nyx__apply1(ctx, ID(gelu), t[0], NULL, &t[1]);
  if (status == NYX_OK) status = nyx__apply2(ctx, ID(atan2), t[1], v, NULL, &t[2]);
  if (status == NYX_OK) status = nyx__apply2(ctx, ID(pow), t[0], t[2], NULL, &t[3]);
  nyx_tensor *where[] = {t[3], t[2], v};
  if (status == NYX_OK) status = nyx__applyn(ctx, ID(where), where, 3, NULL, &t[4]);
  if (status == NYX_OK) status = nyx__apply2(ctx, ID(matmul), t[4], t[3], NULL, &t[5]);
  nyx_tensor *linear[] = {x, x, t[2]};
  if (status == NYX_OK) status = nyx__apply1(ctx, ID(sum), t[5], NULL, &t[6]);
  if (status == NYX_OK) {
    out[0] = t[5];
    status = nyx_apply(ctx, nyx__op(ID(mul)), (nyx_tensor *[]){t[5], t[6]}, 2, NULL, out);
  }
  if (status == NYX_OK) {
    const nyx_value first[] = {NYX_I(0), NYX_I(0)};
    status = nyx__apply1(ctx, ID(select), t[2], first, &linear[2]);
    if (status == NYX_OK) {
      status = nyx__applyn(ctx, ID(linear), linear, 3, NULL, &t[7]);
      nyx_tensor_release(linear[2]);
    }
  }
  if (status == NYX_OK) status = nyx__apply2(ctx, ID(add), t[5], t[7], NULL, &last[0]);
  if (status == NYX_OK) status = nyx_complex_lower(ctx, level, last[0], &last[1], result);
  nyx_transform_end(ctx, level);
  for (int i = 0; i < 8; i++) nyx_tensor_release(t[i]);
  for (int i = 0; i < 2; i++) nyx_tensor_release(last[i]);
  return status;
}

static nyx_status twice_forward_of(nyx_tensor *x, nyx_tensor *v, nyx_tensor **out) {
  return twice_forward(v, x, out);
}

/* ---- functions of the host */

static int freed; /* payloads */
static void free_payload(void *payload) {
  freed++;
  (void)payload;
}

/* y = x^3, with 5 g x y as its gradient, so that it is seen which is taken. */
static nyx_status cube_backward(nyx_backward *b) {
  nyx_tensor *xy, *gxy, *five;
  NYX_TRY(nyx__apply2(b->ctx, ID(mul), b->saved[0], b->saved[1], NULL, &xy));
  nyx_status status = nyx__apply2(b->ctx, ID(mul), b->grad_out[0], xy, NULL, &gxy);
  nyx_tensor_release(xy);
  if (status != NYX_OK) return status;
  status = nyx_tensor_scalar(b->ctx, 5, NYX_FLOAT64, true, &five);
  if (status == NYX_OK) {
    status = nyx__apply2(b->ctx, ID(mul), gxy, five, NULL, &b->grad_in[0]);
    nyx_tensor_release(five);
  }
  nyx_tensor_release(gxy);
  return status;
}

static nyx_status host_cube(nyx_tensor *x, nyx_tensor **out) {
  nyx_tensor *square;
  *out = NULL;
  nyx_context_set_grad_enabled(ctx, false);
  nyx_status status = nyx__apply2(ctx, ID(mul), x, x, NULL, &square);
  if (status == NYX_OK) {
    status = nyx__apply2(ctx, ID(mul), square, x, NULL, out);
    nyx_tensor_release(square);
  }
  nyx_context_set_grad_enabled(ctx, true);
  if (status != NYX_OK) return status;
  const nyx_function f = {
      .name = "cube", .backward = cube_backward, .payload = &freed, .free = free_payload};
  status = nyx_record_function(ctx, &f, &x, 1, out, 1, (nyx_tensor *[]){x, *out}, 2);
  if (status == NYX_OK) return NYX_OK;
  nyx_tensor_release(*out);
  *out = NULL;
  return status;
}

/* The derivative along v of the cube's gradient, for every entry: (5 x x^3)' v = 5 (x^3 +
 * x 5 x x^3) v, the cube's own derivative being what it says. */
static nyx_status cubes_of(nyx_tensor *x, nyx_tensor *v, nyx_tensor **result) {
  nyx_level level[2];
  nyx_tensor *t[9] = {NULL};
  *result = NULL;
  must(nyx_batch_begin(ctx, nyx_tensor_shape(x)[0], &level[0]));
  must(nyx_dual_begin(ctx, &level[1]));
  nyx_status status = nyx_batch_lift(ctx, level[0], x, 0, &t[0]);
  if (status == NYX_OK) status = nyx_dual_lift(ctx, level[1], t[0], v, &t[1]);
  if (status == NYX_OK) status = nyx_transform_variable(ctx, t[1], &t[2]);
  if (status == NYX_OK) status = host_cube(t[2], &t[3]);
  if (status == NYX_OK) status = nyx__apply1(ctx, ID(sum), t[3], NULL, &t[4]);
  if (status == NYX_OK) status = nyx_gradients(ctx, t[4], NULL, &t[2], 1, NULL, &t[5]);
  if (status == NYX_OK) status = nyx_dual_lower(ctx, level[1], t[5], &t[6], &t[7]);
  if (status == NYX_OK) status = nyx_batch_lower(ctx, level[0], t[7], 0, result);
  nyx_transform_end(ctx, level[0]);
  for (int i = 0; i < 9; i++) nyx_tensor_release(t[i]);
  return status;
}

static void functions_at_levels(void) {
  nyx_tensor *x = make(NYX_FLOAT64, SHAPE(2, 2), VALUES(1, 2, 3, 4)), *got;
  nyx_tensor *v = vector(2, VALUES(1, 10));
  freed = 0;
  must(cubes_of(x, v, &got));
  CHECK_INT(freed, 1);
  double expected[4];
  for (int i = 0; i < 4; i++) {
    double at = i + 1, cubed = at * at * at;
    expected[i] = 5 * (cubed + at * 5 * at * cubed) * (i % 2 ? 10 : 1);
  }
  CHECK(same(read(got), expected, 4));
  nyx_tensor_release(got);
  nyx_tensor_release(x);
  nyx_tensor_release(v);
}

/* The gradient of a function of the host takes no part in imaginary parts. */
static void functions_leave_complex_numbers(void) {
  size_t before = live();
  nyx_level level;
  nyx_tensor *x = vector(2, VALUES(2, 3)), *v = vector(2, VALUES(1, 10));
  const nyx_function f = {"cube", cube_backward, NULL, free_payload};
  must(nyx_complex_begin(ctx, &level));
  freed = 0;
  for (int recorded = 0; recorded < 2; recorded++) {
    must(nyx_tensor_set_requires_grad(ctx, x, recorded));
    nyx_tensor *z = complex_number(level, x, v);
    nyx_context_set_grad_enabled(ctx, false);
    nyx_tensor *y = cube(keep(z)), *saved[] = {z, y};
    nyx_context_set_grad_enabled(ctx, true);
    nyx_status status = nyx_record_function(ctx, &f, &z, 1, &y, 1, saved, 2);
    CHECK_INT(status, recorded ? NYX_ERR_UNSUPPORTED : NYX_OK);
    CHECK_INT(freed, recorded + 1);
    derivative_is(level, y, 2, VALUES(8, 27), VALUES(12, 270));
    nyx_tensor_release(z);
  }
  nyx_transform_end(ctx, level);
  nyx_tensor_release(x);
  nyx_tensor_release(v);
  CHECK_INT(live(), before);
}

static void every_allocation_fails(void) {
  const job jobs[] = {per_entry_of,     products, written,
                      twice_forward_of, cubes_of, complex_ops};
  nyx_tensor *x = make(NYX_FLOAT64, SHAPE(2, 2), VALUES(1, 2, 3, 4));
  nyx_tensor *v = vector(2, VALUES(1, 10)), *expected = NULL, *got = NULL;
  for (int k = 0; k < 6; k++) {
    must(jobs[k](x, v, &expected)); /* opens what is opened once */
    nyx_status status = NYX_ERR_MEMORY;
    int n = 0;
    for (; status == NYX_ERR_MEMORY && n < 2000; n++) {
      size_t before = live();
      nyx_memory_fail_after(n);
      status = jobs[k](x, v, &got);
      nyx_memory_fail_after(-1);
      if (status == NYX_OK) break;
      CHECK_AT(got == NULL && live() == before, "nothing leaks",
               ": job %d, allocation %d: %zu bytes", k, n, live() - before);
      CHECK_INT(nyx_transform_depth(ctx), 0);
    }
    CHECK_AT(status == NYX_OK && n > 10, "the job succeeds at last", ": job %d, %d: %s",
             k, n, nyx_context_error(ctx));
    CHECK(got && expected && same(read(got), read(expected), nyx_tensor_numel(expected)));
    CHECK(same(read(x), VALUES(1, 2, 3, 4), 4) && same(read(v), VALUES(1, 10), 2));
    nyx_tensor_release(got);
    nyx_tensor_release(expected);
    got = NULL;
  }
  nyx_tensor_release(x);
  nyx_tensor_release(v);
}

int main(void) {
  if (nyx_context_new(&ctx) != NYX_OK) return 1;
  RUN(a_dual_has_value_and_tangent);
  RUN(duals_of_duals_are_second_derivatives);
  RUN(changes_in_place_change_tangents);
  RUN(the_complex_step_differentiates);
  RUN(complex_numbers_change_in_place);
  RUN(complex_numbers_nest);
  RUN(what_the_complex_step_refuses);
  RUN(a_batch_has_entries);
  RUN(batches_nest);
  RUN(entries_change_in_place);
  RUN(random_numbers_of_entries);
  RUN(gradients_of_entries);
  RUN(derivatives_of_gradients_of_entries);
  RUN(second_derivatives_of_softmax);
  RUN(closed_levels);
  RUN(too_many_levels);
  RUN(wrong_parts);
  RUN(what_a_batch_refuses);
  RUN(lifted_tensors_may_be_dropped);
  RUN(functions_at_levels);
  RUN(functions_leave_complex_numbers);
  RUN(every_allocation_fails);
  nyx_context_free(ctx);
  return check_done();
}
