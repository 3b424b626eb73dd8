/* What every public header needs: visibility, must-check, limits and the library's
 * version. Read next: status.h, context.h, tensor.h, op.h. */
#ifndef NYX_API_H
#define NYX_API_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define NYX_VERSION_MAJOR 0
#define NYX_VERSION_MINOR 1
#define NYX_VERSION_PATCH 0
#define NYX_VERSION "0.1.0"

#ifdef __cplusplus
#define NYX_API extern "C" __attribute__((visibility("default")))
#else
#define NYX_API __attribute__((visibility("default")))
#endif
#define NYX_MUST_CHECK __attribute__((warn_unused_result))
#define NYX_PRINTF(fmt, args) __attribute__((format(printf, fmt, args)))

/* Most dimensions of a tensor, inputs, outputs and attributes of one op application. Ops
 * that take a list of tensors (cat, stack) accept NYX_MAX_INPUTS of them; the bindings
 * fold longer lists. */
#define NYX_MAX_DIMS 8
#define NYX_MAX_INPUTS 64
#define NYX_MAX_OUTPUTS 4
#define NYX_MAX_ATTRS 16

typedef struct nyx_context nyx_context;
typedef struct nyx_tensor nyx_tensor;
typedef struct nyx_op nyx_op;
typedef struct nyx_device nyx_device;

/* The version of the library that is running, "major.minor.patch". */
NYX_API const char *nyx_version(void);

#endif
