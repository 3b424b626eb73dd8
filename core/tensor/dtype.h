/* What there is to say of a dtype, for those who have one that is known to be one: the
 * small questions are no calls where every op asks them. Read next: dtype.c. */
#ifndef NYX_TENSOR_DTYPE_H
#define NYX_TENSOR_DTYPE_H

#include <nyx/dtype.h>

typedef struct nyx__dtype_row {
  const char *name, *short_name;
  uint8_t size;
  nyx_dtype_kind kind;
} nyx__dtype_row;

extern const nyx__dtype_row nyx__dtype_rows[NYX_DTYPE_COUNT];

static inline int64_t nyx__item(nyx_dtype dtype) { /* bytes of an element */
  return nyx__dtype_rows[dtype].size;
}

static inline bool nyx__complex_dtype(nyx_dtype dtype) {
  return nyx__dtype_rows[dtype].kind == NYX_KIND_COMPLEX;
}

/* Whether tensors of it have gradients. */
static inline bool nyx__has_gradient(nyx_dtype dtype) {
  return nyx__dtype_rows[dtype].kind >= NYX_KIND_FLOAT;
}

#endif
