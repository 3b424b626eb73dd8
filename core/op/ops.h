/* The op table inside the core: ids, rows, and shorthand to call ops from ops and
 * gradients. Read next: table.c (where the table is put together), apply.c. */
#ifndef NYX_OP_OPS_H
#define NYX_OP_OPS_H

#include <nyx/op.h>

#include "../base/context.h"
#include "../tensor/dtype.h"

/* Which types a row's kernels exist for. */
#define NYX_ROW_FLOATS 1 /* float32 and float64; half types compute in float32 */
#define NYX_ROW_NUMBERS                                                                  \
  3                    /* and int32, int64; narrower integers and bool compute in int32 */
#define NYX_ROW_INTS 2 /* integers only */

/* A row of kernels/elementwise.def. */
typedef struct nyx_row {
  const char *name;
  int id;    /* 0.. in the order of the file: indexes kernel tables */
  int arity; /* 1 to 3 */
  int types; /* NYX_ROW_* */
  bool result_bool;
  const char *forward;     /* text over x y z p q */
  const char *gradient[3]; /* text over g x y z r p q; NULL: none */
} nyx_row;

/* The dtype of a reduction's result: see kernels/reduce.def. */
typedef enum nyx_reduce_result {
  NYX_REDUCE_SAME,
  NYX_REDUCE_WIDE,
  NYX_REDUCE_BOOL,
  NYX_REDUCE_COUNT,
  NYX_REDUCE_INDEX
} nyx_reduce_result;

/* A row of kernels/reduce.def. */
typedef struct nyx_reduce_row {
  const char *name;
  int id;    /* 0.. in the order of the file, ops before parts: indexes kernel tables */
  int types; /* NYX_ROW_* */
  nyx_reduce_result result;
  const char *init, *combine, *merge, *finish; /* text; NULL: finds positions only */
  const char *gradient; /* text over g x r p q; NULL: none, or a function */
} nyx_reduce_row;

/* How many elementwise rows there are. */
enum {
#define NYX_UNARY(name, ...) +1
#define NYX_BINARY(name, ...) +1
#define NYX_TERNARY(name, ...) +1
  NYX_ROW_COUNT = 0
#include "../../kernels/elementwise.def"
#undef NYX_UNARY
#undef NYX_BINARY
#undef NYX_TERNARY
};

/* Ids of all built-in ops: NYX__OP_add, NYX__OP_sum, NYX__OP_matmul. The .def files name
 * them, in the order of the table. */
typedef enum nyx__op_id {
#define NYX_UNARY(name, ...) NYX__OP_##name,
#define NYX_BINARY(name, ...) NYX__OP_##name,
#define NYX_TERNARY(name, ...) NYX__OP_##name,
#include "../../kernels/elementwise.def"
#undef NYX_UNARY
#undef NYX_BINARY
#undef NYX_TERNARY
#define NYX_REDUCE(name, ...) NYX__OP_##name,
#include "../../kernels/reduce.def"
#undef NYX_REDUCE
#define NYX_STRUCTURAL(name) NYX__OP_##name,
#include "structural.def"
#undef NYX_STRUCTURAL
  NYX__OP_BUILTIN_COUNT
} nyx__op_id;

const nyx_op *nyx__op(nyx__op_id id);
int nyx__op_id_of(const nyx_op *op); /* its id; -1: not built in */

/* Each structural op and view is a constant nyx__op_<name>, defined in its file. */
#define NYX_STRUCTURAL(name) extern const nyx_op nyx__op_##name;
#include "structural.def"
#undef NYX_STRUCTURAL

/* The ops made of the rows of a .def file, in its order (elementwise.c, reduce.c). */
int nyx__elementwise_ops(const nyx_op **first);
int nyx__reduce_ops(const nyx_op **first);
/* The row of a built-in elementwise op. */
const nyx_row *nyx__row(nyx__op_id id);
/* Computes a reduction: fills a nyx_reduction from the call (reduce.c). */
nyx_status nyx__reduce_launch(nyx_call *call) NYX_MUST_CHECK;

/* Shorthand: apply a built-in op to 1, 2 or n inputs. attrs NULL: presets. *out is given.
 */
nyx_status nyx__apply1(nyx_context *ctx, nyx__op_id id, nyx_tensor *a,
                       const nyx_value *attrs, nyx_tensor **out) NYX_MUST_CHECK;
nyx_status nyx__apply2(nyx_context *ctx, nyx__op_id id, nyx_tensor *a, nyx_tensor *b,
                       const nyx_value *attrs, nyx_tensor **out) NYX_MUST_CHECK;
nyx_status nyx__applyn(nyx_context *ctx, nyx__op_id id, nyx_tensor *const *in, int n,
                       const nyx_value *attrs, nyx_tensor **out) NYX_MUST_CHECK;

/* autocast.c: casts the inputs of a call as mixed precision wants it; what is made is put
 * into `made` as well, for the caller to release. */
nyx_status nyx__autocast(nyx_call *call, nyx_tensor **made, int *n_made) NYX_MUST_CHECK;

/* The type a row's kernels compute in. */
static inline nyx_dtype nyx__compute_dtype(nyx_dtype dtype) {
  if (dtype == NYX_FLOAT64 || dtype == NYX_INT64) return dtype;
  return nyx__dtype_rows[dtype].kind == NYX_KIND_FLOAT ? NYX_FLOAT32 : NYX_INT32;
}

/* For infer functions: spec[i] = dtype and shape. Overflow is checked by nyx_apply. */
void nyx__spec(nyx_spec *spec, nyx_dtype dtype, int ndim, const int64_t *shape);
/* Lays spec out in t's order of dimensions, without gaps, where t has its shape and no
 * repeats; true: this decides. */
bool nyx__spec_keep(nyx_spec *spec, const nyx_tensor *t);
/* Lays out spec, of four dimensions, channels-last; and only where t is. */
void nyx__spec_last(nyx_spec *spec);
void nyx__spec_images(nyx_spec *spec, const nyx_tensor *t);
/* spec of an existing tensor (dtype, shape, strides, offset). */
void nyx__spec_of(const nyx_tensor *t, nyx_spec *spec);

/* views.c and copy.c: the shape asked for by `wanted` for x, with -1 filled in. */
nyx_status nyx__target_shape(nyx_context *ctx, const nyx_tensor *x,
                             const nyx_value *wanted, int64_t *shape) NYX_MUST_CHECK;
/* Strides that give x's elements the new shape; false where that needs a copy. */
bool nyx__view_strides(const nyx_tensor *x, int ndim, const int64_t *shape,
                       int64_t *stride);
/* Checks that sizes, strides and offset stay within `numel` elements. */
nyx_status nyx__check_region(nyx_context *ctx, int64_t numel, const nyx_value *size,
                             const nyx_value *stride, int64_t offset) NYX_MUST_CHECK;

/* For gradients: sums g over the dimensions that were broadcast, to `spec`'s shape. Gives
 * a new reference. Recorded when gradients are on. */
nyx_status nyx__sum_to(nyx_context *ctx, nyx_tensor *g, const nyx_spec *spec,
                       nyx_tensor **out) NYX_MUST_CHECK;
/* t in a dtype: t itself, retained, or cast; recorded when gradients are on. */
nyx_status nyx__to_dtype(nyx_context *ctx, nyx_tensor *t, nyx_dtype dtype,
                         nyx_tensor **out) NYX_MUST_CHECK;
/* An attribute that is a memory format, and what it asks for; an error names `name`,
 * which has this shape. */
#define NYX__ATTR_FORMAT(value)                                                          \
  {                                                                                      \
    "memory_format", NYX_ATTR_STRING, false, value,                                      \
        "\"contiguous\", row by row, or \"channels_last\": of images (batch, channels, " \
        "height, width) the channels of a place side by side"                            \
  }
nyx_status nyx__memory_format(nyx_context *ctx, const nyx_value *format, const char *name,
                              int ndim, const int64_t *shape, bool *last) NYX_MUST_CHECK;
/* t channels-last where `like` is, not where it is not: t itself, retained, where that is
 * so, perhaps with gaps, or a copy; recorded when gradients are on. For gradients, which
 * shall lie as what they are the gradients of. */
nyx_status nyx__layout_of(nyx_context *ctx, nyx_tensor *t, const nyx_spec *like,
                          nyx_tensor **out) NYX_MUST_CHECK;
/* A tensor of zeros like `spec`, on the device of `like`. */
nyx_status nyx__zeros(nyx_context *ctx, const nyx_tensor *like, const nyx_spec *spec,
                      nyx_tensor **out) NYX_MUST_CHECK;

/* The gradient of every elementwise row, from its text (core/grad/row.c), and of every
 * reduction (core/op/reduce.c). */
nyx_status nyx__row_gradient(nyx_backward *b);

/* Forward mode of the rows, from the same text (core/grad/row.c), and for ops to name
 * (core/transform/forward.c): linear in all its float inputs together; x and y of a
 * product, with a bias added to it; whatever the gradient gives. */
nyx_status nyx__row_forward(nyx_dual *d) NYX_MUST_CHECK;
/* Imaginary parts of a row, from the text of its value (core/transform/complex.c). */
nyx_status nyx__row_complex(nyx_dual *d) NYX_MUST_CHECK;
nyx_status nyx__forward_linear(nyx_dual *d) NYX_MUST_CHECK;
nyx_status nyx__forward_product(nyx_dual *d) NYX_MUST_CHECK;
nyx_status nyx__forward_quotient(nyx_dual *d) NYX_MUST_CHECK; /* complex_div */
nyx_status nyx__forward_transposed(nyx_dual *d) NYX_MUST_CHECK;

/* Batching rules for ops to name (core/transform/rules.c). */
nyx_status nyx__batch_leading(nyx_batch *b); /* any leading dimensions are a batch */
nyx_status nyx__batch_aligned(nyx_batch *b); /* the same, inputs broadcast */
nyx_status nyx__batch_dims(nyx_batch *b);    /* attributes name dimensions of the input */
nyx_status nyx__batch_new_dim(nyx_batch *b); /* its attribute names one of the result */
nyx_status nyx__batch_shape(nyx_batch *b);   /* its first attribute is a shape */
nyx_status nyx__batch_reduce(nyx_batch *b);  /* dims that may be left out, keepdim */
nyx_status nyx__batch_images(nyx_batch *b);  /* one input: a batch of images, or one */
nyx_status nyx__batch_first(nyx_batch *b);   /* one input, its first dimension a batch */

#endif
