/* Elementwise rows on an OpenCL device. Dimensions are merged first, as on the CPU: what
 * lies in order in memory needs no division to find its place. Read next: source.c. */
#include <stdio.h>
#include <string.h>

#include "opencl.h"

/* Swaps dimension d with the one before it. */
static void swap_dims(nyx_cl_geometry *s, int d) {
  int64_t shape = s->shape[d];
  s->shape[d] = s->shape[d - 1];
  s->shape[d - 1] = shape;
  for (int k = 0; k < NYX_CL_OPERANDS; k++) {
    int64_t stride = s->stride[k][d];
    s->stride[k][d] = s->stride[k][d - 1];
    s->stride[k][d - 1] = stride;
  }
}

static void move_dim(nyx_cl_geometry *s, int from, int to) {
  s->shape[to] = s->shape[from];
  for (int k = 0; k < NYX_CL_OPERANDS; k++) s->stride[k][to] = s->stride[k][from];
}

/* Whether all operands step from dimension d - 1 to d evenly. */
static bool even(const nyx_cl_geometry *s, int d) {
  for (int k = 0; k < NYX_CL_OPERANDS; k++)
    if (s->stride[k][d - 1] != s->stride[k][d] * s->shape[d]) return false;
  return true;
}

/* Drops dimensions of size 1, orders the others so that the output's strides fall, and
 * merges neighbours; one is left at least. Unused operands have strides of 0. */
static void collapse(nyx_cl_geometry *s) {
  const int64_t *out = s->stride[NYX_CL_OPERANDS - 1];
  int n = 0;
  for (int d = 0; d < s->ndim; d++) {
    if (s->shape[d] == 1) continue;
    move_dim(s, d, n++);
    for (int at = n - 1; at > 0 && out[at - 1] < out[at]; at--) swap_dims(s, at);
  }
  int last = 0;
  for (int d = 1; d < n; d++) {
    int64_t before = s->shape[last];
    move_dim(s, d, last + 1);
    if (!even(s, last + 1)) {
      last++;
    } else {
      move_dim(s, last + 1, last);
      s->shape[last] *= before;
    }
  }
  s->ndim = last + 1;
  if (n > 0) return;
  s->shape[0] = 1;
  for (int k = 0; k < NYX_CL_OPERANDS; k++) s->stride[k][0] = 0;
}

static void describe_operand(nyx_cl_geometry *s, int k, const nyx_tensor *t,
                             const nyx_tensor *out) {
  nyx__broadcast_strides(t, out->ndim, s->stride[k]);
  s->offset[k] = t->offset;
}

static void describe(nyx_cl_geometry *s, const nyx_elementwise *job, unsigned numbers) {
  const nyx_tensor *out = job->out;
  *s = (nyx_cl_geometry){.n = out->numel, .ndim = out->ndim};
  for (int i = 0; i < out->ndim; i++) s->shape[i] = out->shape[i];
  for (int k = 0; k < 5; k++)
    if (job->in[k] && !(numbers >> k & 1)) describe_operand(s, k, job->in[k], out);
  describe_operand(s, NYX_CL_OPERANDS - 1, out, out);
  collapse(s);
}

/* Whether element i of every operand is i elements behind its first. */
static bool in_order(const nyx_cl_geometry *s, const nyx_elementwise *job,
                     unsigned numbers) {
  if (s->ndim > 1) return false;
  for (int k = 0; k < NYX_CL_OPERANDS; k++) {
    bool used = k == NYX_CL_OPERANDS - 1 || (job->in[k] && !(numbers >> k & 1));
    if (used && s->stride[k][0] != 1 && s->n > 1) return false;
  }
  return true;
}

static void name_kernel(char *key, const nyx_elementwise *job, unsigned numbers,
                        const nyx_cl_form *form) {
  size_t size = NYX_CL_KEY;
  int used =
      snprintf(key, size, "%s/%d %d%c%c:", job->row->name, job->part, (int)job->compute,
               form->in_order ? 'o' : ' ', form->narrow ? 'i' : 'l');
  for (int k = 0; k < 5; k++)
    if (job->in[k])
      used += snprintf(key + used, size - (size_t)used, " %d%c", (int)job->in[k]->dtype,
                       numbers >> k & 1 ? 'n' : ' ');
  snprintf(key + used, size - (size_t)used, " %d", (int)job->out->dtype);
}

static nyx_status start(nyx_context *ctx, opencl_device *d, const nyx_elementwise *job,
                        cl_kernel kernel, unsigned numbers, bool narrow,
                        const nyx_cl_geometry *s) {
  cl_arguments a = {kernel, 0, 0};
  for (int k = 0; k < 5; k++) {
    const nyx_tensor *in = job->in[k];
    if (!in) continue;
    if (numbers >> k & 1)
      nyx__cl_number(&a, job->compute, nyx__load_double(in->dtype, nyx__data(in)));
    else
      nyx__cl_argument(&a, sizeof(cl_mem), &in->storage->data);
  }
  nyx__cl_argument(&a, sizeof(cl_mem), &job->out->storage->data);
  nyx__cl_geometry(&a, narrow, s);
  nyx__cl_number(&a, job->compute, job->attr[0]);
  nyx__cl_number(&a, job->compute, job->attr[1]);
  size_t groups = ((size_t)s->n + NYX_CL_GROUP - 1) / NYX_CL_GROUP;
  return nyx__cl_launch(ctx, d, &a, job->row->name, groups);
}

nyx_status nyx__cl_elementwise(nyx_context *ctx, nyx_device *dev,
                               const nyx_elementwise *job) {
  opencl_device *d = (opencl_device *)dev;
  unsigned numbers = 0; /* inputs that are not on the device: weak scalars */
  char key[NYX_CL_KEY];
  cl_kernel kernel;
  nyx_cl_geometry s;
  NYX_TRY(nyx__cl_check(ctx, d, job->compute));
  if (job->out->numel == 0) return NYX_OK;
  for (int k = 0; k < 5; k++)
    if (job->in[k] && nyx__on_cpu(job->in[k])) numbers |= 1u << k;
  describe(&s, job, numbers);
  const nyx_cl_form form = {.narrow = nyx__cl_narrow(&s),
                            .in_order = in_order(&s, job, numbers)};
  name_kernel(key, job, numbers, &form);
  pthread_mutex_lock(&d->lock);
  nyx_status status = NYX_OK;
  if (!(kernel = nyx__cl_known(d, key)))
    status = nyx__cl_build(ctx, d, key, nyx__cl_elementwise_source(job, numbers, &form),
                           &kernel);
  if (status == NYX_OK) status = start(ctx, d, job, kernel, numbers, form.narrow, &s);
  pthread_mutex_unlock(&d->lock);
  return status;
}
