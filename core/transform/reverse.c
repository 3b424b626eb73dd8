/* Gradients of lifted tensors: the graph holds what is below, so levels come off the root
 * and the inputs, and go back on the gradients. The derivative along a tangent of a
 * gradient is the gradient of the tangent. Read next: lift.h, core/grad/backward.c. */
#include <nyx/memory.h>

#include "../grad/graph.h"
#include "lift.h"

static void release_all(nyx_tensor **t, int n) {
  for (int i = 0; i < n; i++) nyx_tensor_release(t[i]);
}

/* The seed of every entry of a batch. */
static nyx_status batch_seed(nyx_context *ctx, nyx_tensor *root, nyx_tensor *seed,
                             nyx_tensor *full_root, nyx_level level, nyx_tensor **out) {
  if (seed) return nyx__take_batch(ctx, seed, level, out);
  if (root->numel != 1) return nyx__error(ctx, GRAD_SCALAR, NYX__SHAPE(root));
  if (nyx__complex_dtype(root->dtype))
    return nyx__error(ctx, GRAD_COMPLEX, nyx_dtype_name(root->dtype));
  nyx_tensor *one;
  NYX_TRY(nyx_tensor_scalar(ctx, 1, root->dtype, false, &one));
  nyx_value shape = NYX_LIST(full_root->shape, full_root->ndim);
  nyx_status status = nyx__apply1(ctx, NYX__OP_expand, one, &shape, out);
  nyx_tensor_release(one);
  return status;
}

static nyx_status batch_gradients(nyx_context *ctx, nyx_tensor *root, nyx_tensor *seed,
                                  nyx_tensor *const *inputs, int n,
                                  const nyx_backward_options *options, nyx_tensor **grads,
                                  nyx_level level, nyx_tensor **in) {
  nyx_tensor *full_root = NULL, *full_seed = NULL;
  nyx_status status = NYX_OK;
  for (int i = 0; status == NYX_OK && i < n; i++) {
    if (!nyx__has_level(inputs[i], level))
      status = nyx__error(ctx, GRAD_UNMAPPED, (long long)nyx__said(ctx, i));
    else
      status = nyx__take_batch(ctx, inputs[i], level, &in[i]);
  }
  if (status == NYX_OK && !nyx__has_level(root, level)) return NYX_OK; /* independent */
  if (status == NYX_OK) status = nyx__take_batch(ctx, root, level, &full_root);
  if (status == NYX_OK)
    status = batch_seed(ctx, root, seed, full_root, level, &full_seed);
  if (status == NYX_OK)
    status = nyx_gradients(ctx, full_root, full_seed, in, n, options, grads);
  for (int i = 0; i < n; i++) {
    nyx_tensor *g = grads[i];
    grads[i] = NULL;
    if (g && status == NYX_OK) status = nyx__put_batch(ctx, g, level, &grads[i]);
    nyx_tensor_release(g);
  }
  nyx_tensor_release(full_root);
  nyx_tensor_release(full_seed);
  return status;
}

/* Adds the gradients of `root` to more[n]. A root without history gives none. */
static nyx_status add_gradients(nyx_context *ctx, nyx_tensor *root, nyx_tensor *seed,
                                nyx_tensor *const *in, int n,
                                const nyx_backward_options *options, nyx_tensor **more,
                                nyx_tensor **found) {
  if (!root || !nyx_tensor_requires_grad(root)) return NYX_OK;
  NYX_TRY(nyx_gradients(ctx, root, seed, in, n, options, found));
  nyx_status status = NYX_OK;
  for (int i = 0; i < n; i++) {
    if (status == NYX_OK && found[i] && more[i]) {
      nyx_tensor *sum;
      status = nyx__apply2(ctx, NYX__OP_add, more[i], found[i], NULL, &sum);
      if (status == NYX_OK) {
        nyx_tensor_release(more[i]);
        more[i] = sum;
      }
    } else if (status == NYX_OK && found[i]) {
      more[i] = nyx_tensor_retain(found[i]);
    }
    nyx_tensor_release(found[i]);
    found[i] = NULL;
  }
  return status;
}

static nyx_status dual_gradients(nyx_context *ctx, nyx_tensor *root, nyx_tensor *seed,
                                 nyx_tensor *const *inputs, int n,
                                 const nyx_backward_options *options, nyx_tensor **grads,
                                 nyx_level level, nyx_tensor **in) {
  nyx_tensor **more = in + n, **found = more + n;
  nyx_tensor *value = NULL, *tangent = NULL, *seed_value = NULL, *seed_tangent = NULL;
  nyx_backward_options keep = options ? *options : (nyx_backward_options){0};
  keep.retain_graph = true;
  nyx_status status = NYX_OK;
  for (int i = 0; status == NYX_OK && i < n; i++)
    status = nyx__take_value(ctx, inputs[i], level, &in[i]);
  if (status == NYX_OK) status = nyx__take_value(ctx, root, level, &value);
  if (status == NYX_OK) status = nyx__take_tangent(ctx, root, level, &tangent);
  if (status == NYX_OK && seed) {
    status = nyx__take_value(ctx, seed, level, &seed_value);
    if (status == NYX_OK) status = nyx__take_tangent(ctx, seed, level, &seed_tangent);
  }
  if (status == NYX_OK)
    status = nyx_gradients(ctx, value, seed_value, in, n, &keep, grads);
  if (status == NYX_OK && seed_tangent)
    status = add_gradients(ctx, value, seed_tangent, in, n, &keep, more, found);
  if (status == NYX_OK)
    status = add_gradients(ctx, tangent, seed_value, in, n, options, more, found);
  for (int i = 0; i < n; i++) {
    nyx_tensor *g = grads[i];
    if (status == NYX_OK && more[i]) {
      if (!g) status = nyx__zeros_of(ctx, more[i], &g);
      grads[i] = NULL;
      if (status == NYX_OK) status = nyx__put_dual(ctx, g, more[i], level, &grads[i]);
      nyx_tensor_release(g);
    }
    nyx_tensor_release(more[i]);
  }
  nyx_tensor *parts[] = {value, tangent, seed_value, seed_tangent};
  release_all(parts, 4);
  return status;
}

/* The highest level of duals in t. */
static nyx_level highest_dual(const nyx_tensor *t) {
  for (; t && t->lift; t = t->lift->value)
    if (!t->lift->batch) return t->lift->level;
  return 0;
}

bool nyx__lifted_pass(const nyx_tensor *root, const nyx_tensor *seed,
                      nyx_tensor *const *inputs, int n) {
  return nyx__highest_level(root, inputs, n) > 0 || highest_dual(seed) > 0;
}

nyx_status nyx__lifted_gradients(nyx_context *ctx, nyx_tensor *root, nyx_tensor *seed,
                                 nyx_tensor *const *inputs, int n,
                                 const nyx_backward_options *options,
                                 nyx_tensor **grads) {
  nyx_level level = nyx__highest_level(root, inputs, n);
  bool batch = true, is_complex = nyx__is_complex(root) || nyx__is_complex(seed);
  for (int i = 0; i < n; i++) is_complex |= nyx__is_complex(inputs[i]);
  if (is_complex) return nyx__error(ctx, COMPLEX_GRADIENT);
  if (nyx__level_of(root) == level && level) batch = root->lift->batch;
  for (int i = 0; i < n; i++)
    if (nyx__level_of(inputs[i]) == level && level) batch = inputs[i]->lift->batch;
  if (!level) {
    batch = false;
    level = highest_dual(seed);
  }
  size_t bytes = (3 * (size_t)n + 1) * sizeof(nyx_tensor *); /* in, more, found */
  nyx_tensor **in = nyx_memory_alloc_zeroed(bytes);
  if (!in) return nyx__no_memory(ctx, bytes);
  nyx_status status = (batch ? batch_gradients : dual_gradients)(
      ctx, root, seed, inputs, n, options, grads, level, in);
  release_all(in, n);
  nyx_memory_free(in);
  if (status == NYX_OK) return NYX_OK;
  for (int i = 0; i < n; i++) {
    nyx_tensor_release(grads[i]);
    grads[i] = NULL;
  }
  return status;
}
