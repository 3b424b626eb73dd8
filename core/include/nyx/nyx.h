/* Nyx: tensors, automatic differentiation and kernels in one C library, for C11 and
 * C++17. This header brings in all the others. A first program: examples/embed/tensor.c.
 */
#ifndef NYX_NYX_H
#define NYX_NYX_H

#include "api.h"
#include "arena.h"
#include "context.h"
#include "device.h"
#include "dtype.h"
#include "grad.h"
#include "memory.h"
#include "op.h"
#include "parallel.h"
#include "status.h"
#include "tensor.h"
#include "transform.h"
#include "tune.h"

#endif
