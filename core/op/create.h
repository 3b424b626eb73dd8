/* What constructors share: reading their shape and dtype attributes. */
#ifndef NYX_OP_CREATE_H
#define NYX_OP_CREATE_H

#include <nyx/op.h>

#define NYX__ATTR_SHAPE                                                                  \
  { "shape", NYX_ATTR_INTS, true, {.given = false}, "the sizes" }
#define NYX__ATTR_DTYPE                                                                  \
  {                                                                                      \
    "dtype", NYX_ATTR_DTYPE, false, {.given = false},                                    \
        "the element type; the default float dtype when left out"                        \
  }

/* The dtype attribute number `attr`, or `preset`; `expected` names the allowed ones. */
nyx_status nyx__create_dtype(nyx_call *c, int attr, nyx_dtype preset, uint32_t allowed,
                             const char *expected, nyx_dtype *out) NYX_MUST_CHECK;
/* spec[0] from the shape attribute number `attr`. */
nyx_status nyx__create_shape(nyx_call *c, int attr, nyx_dtype dtype) NYX_MUST_CHECK;

#endif
