/* Forms of a storage's contents that ops keep between calls, for weights that are used
 * many times unchanged (nyx_tensor_keep_packed): panels of a product, transformed
 * kernels. Each is made once, by the first op that wants it, and again after the contents
 * changed; all are freed with the storage. Safe from any thread. Read next: packed.c;
 * core/linalg/panels.c, one that keeps some. */
#ifndef NYX_TENSOR_PACKED_H
#define NYX_TENSOR_PACKED_H

#include "tensor.h"

/* Which form it is, by who makes and reads it. */
typedef enum nyx__packed_kind {
  NYX_PACKED_A,        /* the left factor of a product: core/linalg/gemm.c */
  NYX_PACKED_B,        /* the right one: core/linalg/panels.c */
  NYX_PACKED_LOW_B,    /* that of narrow types: core/linalg/low.c */
  NYX_PACKED_WINOGRAD, /* that of a convolution, transformed: core/op/winograd.c */
  NYX_PACKED_CONV      /* the weight of a convolution: core/op/conv_product.c */
} nyx__packed_kind;

#define NYX_PACKED_SIZES 8

/* Two forms with equal keys are the same form. */
typedef struct nyx__packed_key {
  nyx__packed_kind kind;
  const void *kernel;             /* what reads it: a table of functions */
  const void *from;               /* where what is packed begins */
  int64_t size[NYX_PACKED_SIZES]; /* its sizes, strides and blocks; unused ones 0 */
} nyx__packed_key;

typedef struct nyx__packed {
  atomic_int refs;
  struct nyx__packed *next;
  nyx__packed_key key;
  uint32_t version; /* of the storage, when it was made */
  size_t bytes;
  void *data; /* 64-byte aligned; nobody writes it any more */
} nyx__packed;

/* Whether forms of it are to be kept. */
static inline bool nyx__keeps_packed(const nyx_storage *s) {
  const nyx__forms *forms = atomic_load_explicit(&s->forms, memory_order_acquire);
  return forms && nyx__forms_on(forms);
}

/* The form that `key` names of a storage that keeps them, for the caller to release; made
 * by make(arg, data) where there is none. NULL: there is no memory for it, or there are
 * none to be kept, or `make` said that it failed. */
nyx__packed *nyx__packed_get(nyx_storage *s, const nyx__packed_key *key, size_t bytes,
                             bool (*make)(void *arg, void *data), void *arg);
void nyx__packed_release(nyx__packed *p); /* NULL is allowed */

#endif
