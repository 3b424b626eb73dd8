/* The table of one instruction-set path, put together from the kernels of this path.
 * Read next: cpu.h, core/device/cpu/path.c. */
#include "attention.h"
#include "complex.h"
#include "depthwise.h"
#include "distance.h"
#include "elementwise.h"
#include "fft.h"
#include "gemm.h"
#include "last.h"
#include "low.h"
#include "matrices.h"
#include "move.h"
#include "narrow.h"
#include "norm.h"
#include "optim.h"
#include "patches.h"
#include "pool.h"
#include "quantized.h"
#include "random.h"
#include "reach.h"
#include "recurrence.h"
#include "reduce.h"
#include "rotary.h"
#include "scan.h"
#include "softmax.h"
#include "winograd.h"

#define NYX_NAME2(path) #path
#define NYX_NAME(path) NYX_NAME2(path)

extern const nyx_elementwise_kernels NYX_PATH(elementwise);
extern const nyx_reduce_kernels NYX_PATH(reduce);
extern const nyx_gemm_kernels NYX_PATH(gemm);
extern const nyx_low_kernels NYX_PATH(low);
extern const nyx_softmax_kernels NYX_PATH(softmax);
extern const nyx_move_kernels NYX_PATH(move);
extern const nyx_scan_kernels NYX_PATH(scan);
extern const nyx_norm_kernels NYX_PATH(norm);
extern const nyx_attention_kernels NYX_PATH(attention);
extern const nyx_recurrence_kernels NYX_PATH(recurrence);
extern const nyx_optim_kernels NYX_PATH(optim);
extern const nyx_depthwise_kernels NYX_PATH(depthwise);
extern const nyx_patches_kernels NYX_PATH(patches);
extern const nyx_pool_kernels NYX_PATH(pool);
extern const nyx_quantized_kernels NYX_PATH(quantized);
extern const nyx_winograd_kernels NYX_PATH(winograd);
extern const nyx_last_kernels NYX_PATH(last);
extern const nyx_rotary_kernels NYX_PATH(rotary);
extern const nyx_narrow_kernels NYX_PATH(narrow);
extern const nyx_fft_kernels NYX_PATH(fft);
extern const nyx_complex_kernels NYX_PATH(complex);
extern const nyx_random_kernels NYX_PATH(random);
extern const nyx_distance_kernels NYX_PATH(distance);
extern const nyx_reach_kernels NYX_PATH(reach);
extern const nyx_matrices_kernels NYX_PATH(matrices);
extern const nyx_cpu_kernels NYX_PATH(kernels);

const nyx_cpu_kernels NYX_PATH(kernels) = {
    .name = NYX_NAME(NYX_CPU_PATH),
    .width = NYX_NAME(NYX_CPU_PATH),
    .elementwise = &NYX_PATH(elementwise),
    .reduce = &NYX_PATH(reduce),
    .gemm = &NYX_PATH(gemm),
    .low = &NYX_PATH(low),
    .move = &NYX_PATH(move),
    .softmax = &NYX_PATH(softmax),
    .scan = &NYX_PATH(scan),
    .norm = &NYX_PATH(norm),
    .attention = &NYX_PATH(attention),
    .recurrence = &NYX_PATH(recurrence),
    .optim = &NYX_PATH(optim),
    .depthwise = &NYX_PATH(depthwise),
    .patches = &NYX_PATH(patches),
    .pool = &NYX_PATH(pool),
    .quantized = &NYX_PATH(quantized),
    .winograd = &NYX_PATH(winograd),
    .last = &NYX_PATH(last),
    .rotary = &NYX_PATH(rotary),
    .narrow = &NYX_PATH(narrow),
    .fft = &NYX_PATH(fft),
    .complex = &NYX_PATH(complex),
    .random = &NYX_PATH(random),
    .distance = &NYX_PATH(distance),
    .reach = &NYX_PATH(reach),
    .matrices = &NYX_PATH(matrices),
};
