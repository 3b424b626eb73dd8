/* Nyx: tensors, automatic differentiation and kernels in one C library. This header
 * brings in all the others. A first program: examples/embed/tensor.c. */
#ifndef NYX_NYX_H
#define NYX_NYX_H

#ifdef __cplusplus
extern "C" {
#endif

#include "api.h"
#include "context.h"
#include "device.h"
#include "dtype.h"
#include "grad.h"
#include "memory.h"
#include "op.h"
#include "parallel.h"
#include "status.h"
#include "tensor.h"

#ifdef __cplusplus
}
#endif

#endif
