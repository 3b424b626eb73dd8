/* The op table and nyx_apply, the one path every op takes. An op describes itself: name,
 * inputs, attributes, dtypes, documentation, test cases. Bindings, the reference, the
 * specs and graph export all iterate over the table. Extensions register ops of the same
 * kind. */
#ifndef NYX_OP_H
#define NYX_OP_H

#include "tensor.h"

typedef enum nyx_attr_type {
  NYX_ATTR_INT,   /* a count: kernel sizes, repeats */
  NYX_ATTR_FLOAT, /* a number */
  NYX_ATTR_BOOL,
  NYX_ATTR_INTS,  /* a list of counts: a shape, a padding */
  NYX_ATTR_DIM,   /* a dimension; negative counts from the end; 1-based in Lua */
  NYX_ATTR_DIMS,  /* a list of dimensions */
  NYX_ATTR_INDEX, /* a position in a dimension; 1-based in Lua */
  NYX_ATTR_STRING,
  NYX_ATTR_DTYPE
} nyx_attr_type;

/* An attribute's value. `given` is false for an optional one that was left out and has no
 * default. INT, BOOL, DIM, INDEX, DTYPE use i; FLOAT f; INTS, DIMS list and n; STRING s.
 */
typedef struct nyx_value {
  union {
    int64_t i;
    double f;
    const int64_t *list;
    const char *s;
  };
  int n;
  bool given;
} nyx_value;

/* Values, also in the tables of ops (no parentheses around them, so that they are
 * constant there). C++17 has no initialisers of this kind: there they are calls. */
#ifdef __cplusplus
static inline nyx_value nyx__value(bool given, int n = 0) {
  nyx_value v = {};
  v.n = n;
  v.given = given;
  return v;
}
static inline nyx_value nyx__value_int(int64_t i) {
  nyx_value v = nyx__value(true);
  v.i = i;
  return v;
}
static inline nyx_value nyx__value_float(double f) {
  nyx_value v = nyx__value(true);
  v.f = f;
  return v;
}
static inline nyx_value nyx__value_string(const char *s) {
  nyx_value v = nyx__value(true);
  v.s = s;
  return v;
}
static inline nyx_value nyx__value_list(const int64_t *list, int n) {
  nyx_value v = nyx__value(true, n);
  v.list = list;
  return v;
}
#define NYX_NONE nyx__value(false)
#define NYX_I(value) nyx__value_int(value)
#define NYX_F(value) nyx__value_float(value)
#define NYX_S(value) nyx__value_string(value)
#define NYX_LIST(values, count) nyx__value_list(values, count)
#else
#define NYX_NONE                                                                         \
  (nyx_value) {                                                                          \
    .i = 0, .n = 0, .given = false                                                       \
  }
#define NYX_I(value)                                                                     \
  (nyx_value) {                                                                          \
    .i = (value), .n = 0, .given = true                                                  \
  }
#define NYX_F(value)                                                                     \
  (nyx_value) {                                                                          \
    .f = (value), .n = 0, .given = true                                                  \
  }
#define NYX_S(value)                                                                     \
  (nyx_value) {                                                                          \
    .s = (value), .n = 0, .given = true                                                  \
  }
#define NYX_LIST(values, count)                                                          \
  (nyx_value) {                                                                          \
    .list = (values), .n = (count), .given = true                                        \
  }
#endif

typedef struct nyx_attr {
  const char *name;
  nyx_attr_type type;
  bool required;
  nyx_value preset; /* used when it is left out; NYX_NONE: the op sees given == false */
  const char *doc;
} nyx_attr;

/* What an output will be. Stride is read for views, and where `laid_out` says so: then
 * memory is allocated in the order of these strides, which leave no gaps. */
typedef struct nyx_spec {
  nyx_dtype dtype;
  int ndim;
  int64_t shape[NYX_MAX_DIMS];
  int64_t stride[NYX_MAX_DIMS];
  int64_t offset; /* of views */
  bool laid_out;  /* set it in `infer`; nyx_apply clears it before */
} nyx_spec;

/* One application of an op on its way through nyx_apply. */
typedef struct nyx_call {
  nyx_context *ctx;
  const nyx_op *op;
  nyx_tensor **in; /* borrowed; an optional input that was left out is NULL */
  int n_in;
  const nyx_value *attr; /* one per op->attrs, presets filled in */
  nyx_device *device;
  nyx_dtype dtype;                /* what the inputs promote to, per op->promotion */
  void *payload;                  /* what an op of one's own carries along, else NULL */
  int n_out;                      /* set by nyx_apply to op->n_out; infer may lower it */
  nyx_spec spec[NYX_MAX_OUTPUTS]; /* filled by infer */
  nyx_tensor *out[NYX_MAX_OUTPUTS]; /* allocated from spec before launch; contiguous
                                      unless the spec is laid out otherwise */
  void *found; /* a block that infer of a by_value op leaves for `cpu`, or NULL; nyx_apply
                * gives it back with nyx_memory_free */
} nyx_call;

/* One step of the backward pass. `in` and `out` hold what save_in and save_out ask for,
 * else NULL. Write the gradient of input i, in its shape and dtype, to grad_in[i] (given
 * away) when need[i]; leaving it NULL says the gradient is zero. Write it with ops
 * (nyx_apply): then it can be differentiated again. */
typedef struct nyx_backward {
  nyx_context *ctx;
  const nyx_op *op;
  const nyx_value *attr;
  int n_in, n_out;
  nyx_tensor **in;
  nyx_tensor **out;
  const nyx_spec *in_spec;  /* dtype, ndim and shape of every input */
  const nyx_spec *out_spec; /* and of every output */
  nyx_tensor **grad_out;    /* NULL where no gradient arrived */
  const bool *need;
  nyx_tensor **grad_in;
  void *payload; /* the call's */
  /* What a function of the host kept for itself (nyx_record_function in grad.h). */
  nyx_tensor **saved;
  int n_saved;
} nyx_backward;

/* One step of forward mode (transform.h): write the derivative of out[k] along the
 * tangents, in its shape and dtype, to tangent_out[k] (given away); leaving it NULL says
 * it is zero. Write it with ops. */
typedef struct nyx_dual {
  nyx_context *ctx;
  const nyx_op *op;
  const nyx_value *attr;
  void *payload;
  int n_in, n_out;
  nyx_tensor **in;      /* all inputs; an optional one that was left out is NULL */
  nyx_tensor **tangent; /* of their shapes and dtypes; NULL: zero */
  nyx_tensor **out;     /* the results */
  nyx_tensor **tangent_out;
  /* What a function of the host kept for itself (nyx_record_function in grad.h). */
  nyx_tensor **saved;
  int n_saved;
} nyx_dual;

/* An op applied to every entry of a batch at once (transform.h). Where batched[i], the
 * first dimension of in[i] counts the entries; other inputs are the same for all. Write
 * all entries' results, the batch as first dimension, to out[k] (given away), with ops.
 */
typedef struct nyx_batch {
  nyx_context *ctx;
  const nyx_op *op;
  const nyx_value *attr;
  void *payload;
  int64_t size; /* entries */
  int n_in, n_out;
  nyx_tensor **in;
  bool *batched;
  const nyx_spec *spec; /* of the result for one entry */
  nyx_tensor **out;
} nyx_batch;

typedef enum nyx_op_kind {
  NYX_OP_ELEMENTWISE, /* a row of kernels/elementwise.def */
  NYX_OP_REDUCTION,   /* a row of kernels/reduce.def */
  NYX_OP_VIEW,        /* no kernel: new strides over the same storage */
  NYX_OP_STRUCTURAL,  /* one file in core/op, or an extension */
  NYX_OP_PORTABLE, /* the same, but `cpu` serves every device: it calls other kernels */
  NYX_OP_COMPOSITE /* `cpu` makes call->out from other ops, which record themselves;
                      no infer, no gradient */
} nyx_op_kind;

typedef enum nyx_promotion {
  NYX_PROMOTE_NONE,   /* call.dtype is the first input's; infer checks the others */
  NYX_PROMOTE_COMMON, /* all inputs convert to their common dtype */
  NYX_PROMOTE_FLOAT   /* the same, integers and bools become the default float dtype */
} nyx_promotion;

/* What mixed precision does to the float inputs of an op, unless one is float64. Inputs
 * that still differ promote as ever. */
typedef enum nyx_autocast {
  NYX_AUTOCAST_NONE,   /* nothing: it computes in the dtype that comes */
  NYX_AUTOCAST_LOW,    /* casts to the dtype of nyx_context_set_autocast: products */
  NYX_AUTOCAST_FLOAT32 /* casts float16 and bfloat16 up: sums, exponentials, losses */
} nyx_autocast;

#define NYX_SAVE(i) (1u << (i))
#define NYX_SAVE_ALL 0xffffffffu

struct nyx_op {
  const char *name;
  const char *group; /* heading in the reference: "arithmetic", "reduction", ... */
  const char *doc;   /* one line or more: result, shapes, paper or standard */
  nyx_op_kind kind;
  nyx_promotion promotion;
  uint32_t dtypes; /* NYX_DTYPES_*: what call.dtype may be; 0: any */
  nyx_autocast autocast;

  /* Inputs: names separated by blanks; those after min_in are optional. A list op
   * (`variadic`) takes min_in or more, as one table in Lua. */
  const char *inputs;
  int min_in, max_in;
  bool variadic;
  bool updates;      /* out[0] starts as in[0] itself (in place) or a copy of it */
  bool fills;        /* with `updates`: where it is not in[0] the op copies it itself */
  bool overwrites;   /* reads nothing of out[0]: it may be an `out` laid out as spec[0] */
  bool random;       /* draws from the context's random numbers */
  uint32_t state_in; /* NYX_SAVE(i): input i is updated in place, whatever out is */
  bool by_value;     /* infer reads the inputs' elements: shapes depend on them */
  uint32_t index_in; /* NYX_SAVE(i): input i holds positions or labels (integers) */

  const nyx_attr *attrs;
  int n_attrs;
  int n_out;

  /* Checks the call and fills spec[0..n_out-1]. NULL for elementwise rows and reductions.
   */
  nyx_status (*infer)(nyx_call *call);
  /* Computes call->out on the CPU. NULL for views. */
  nyx_status (*cpu)(nyx_call *call);
  /* NULL: the results count as constants; with `no_gradient`, wanting one is an error. */
  nyx_status (*gradient)(nyx_backward *b);
  bool no_gradient;
  uint32_t save_in, save_out;
  /* Forward mode. NULL: it follows from the gradient. */
  nyx_status (*forward)(nyx_dual *d);
  /* The batching rule. NULL: one entry after the other. */
  nyx_status (*batch)(nyx_batch *b);

  /* Calls for the data-driven spec, one per line: "x(3,4) w(4,5); dim=1 keepdim=true".
   * Input names with shapes (a number n fills an index input with positions below n:
   * "i(3)<5"; "m(3)<bool", "x(3)<int8" have a dtype; matrices "a(2,3,3)<definite" are
   * symmetric and positive-definite, "<regular" far from singular, off the diagonal,
   * "<dominant" on it), then attributes as in Lua (1-based). Elementwise rows have a
   * domain. */
  const char *cases;
  double domain[2]; /* where values and gradients are checked */
  const void *row;  /* elementwise and reduction rows: internal */
};

/* Applies `op`. inputs[n] are borrowed; attrs is one value per op->attrs, or NULL for all
 * presets (a value with given == false takes its preset). outputs has op->n_out entries,
 * all NULL on entry; those that the call makes receive new tensors. Instead, outputs[0]
 * of an op with one output may be an existing tensor: it is written in place (shape and
 * dtype must fit) and keeps its reference. On failure no output changes. */
NYX_API NYX_MUST_CHECK nyx_status nyx_apply(nyx_context *ctx, const nyx_op *op,
                                            nyx_tensor *const *inputs, int n,
                                            const nyx_value *attrs, nyx_tensor **outputs);

/* The table: 0..nyx_op_count()-1, in a fixed order, extensions last. */
NYX_API int nyx_op_count(void);
NYX_API const nyx_op *nyx_op_at(int i);              /* NULL out of range */
NYX_API const nyx_op *nyx_op_find(const char *name); /* NULL when there is none */
/* The text of a row of kernels/elementwise.def: its value (part 0), or the gradient of
 * input `part` (from 1); NULL where there is none. */
NYX_API const char *nyx_op_text(const nyx_op *op, int part);
/* Adds an op; *op and all it points to must stay valid for the life of the process. */
NYX_API NYX_MUST_CHECK nyx_status nyx_op_register(nyx_context *ctx, const nyx_op *op);

#endif
