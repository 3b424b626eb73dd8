/* Status codes. Every function that can fail returns one and, where it takes a context,
 * leaves a message there, shaped "what, got, expected, remedy" (nyx_context_error). */
#ifndef NYX_STATUS_H
#define NYX_STATUS_H

#include "api.h"

typedef enum nyx_status {
  NYX_OK = 0,
  NYX_ERR_ARGUMENT,    /* a value that no call of this function accepts */
  NYX_ERR_SHAPE,       /* sizes or numbers of dimensions do not fit together */
  NYX_ERR_DTYPE,       /* element types do not fit */
  NYX_ERR_INDEX,       /* a position or dimension out of range */
  NYX_ERR_MEMORY,      /* no memory, or the limit set by the host is reached */
  NYX_ERR_DEVICE,      /* a device is missing or its driver failed */
  NYX_ERR_UNSUPPORTED, /* valid, but this device or dtype has no kernel for it */
  NYX_ERR_STATE,       /* released tensors, freed graphs, modified saved values */
  NYX_ERR_IO,          /* files */
  NYX_ERR_INTERRUPTED  /* nyx_context_interrupt was called */
} nyx_status;

/* A short name, "shape" for NYX_ERR_SHAPE; never NULL. */
NYX_API const char *nyx_status_name(nyx_status status);

#endif
