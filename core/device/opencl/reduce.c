/* Reductions on an OpenCL device. Work-items share the elements of a result where these
 * are many, and groups where results are few; how many depends on sizes only, and so do
 * the results. Read next: source.c (the kernels), core/op/reduce.c (who asks). */
#include <stdio.h>
#include <stdlib.h>

#include "../sides.h"
#include "opencl.h"

#define EACH 16       /* elements of a result that a work-item takes at least */
#define NEIGHBOURS 64 /* results side by side whose elements are read together */

/* How a pass is shared: see source.h. */
typedef struct plan {
  bool rows;
  int64_t down, blocks, length, parts;
} plan;

static plan share(int64_t results, int64_t n, bool rows, bool cut) {
  plan p = {.rows = rows, .down = 1, .parts = 1, .length = n};
  int64_t side_by_side = 1, most = NYX_CL_GROUP;
  while (!rows && side_by_side < results && side_by_side < NEIGHBOURS) side_by_side *= 2;
  most /= side_by_side;
  while (2 * p.down <= most && 2 * EACH * p.down <= n) p.down *= 2;
  int64_t across = NYX_CL_GROUP / p.down;
  p.blocks = (results + across - 1) / across;
  int64_t parts = NYX_CL_GROUPS / p.blocks, worth = n / (EACH * p.down);
  if (parts > worth) parts = worth;
  if (!cut || parts < 2) return p;
  p.length = (n + parts - 1) / parts;
  p.length = (p.length + p.down - 1) / p.down * p.down;
  p.parts = (n + p.length - 1) / p.length;
  return p;
}

/* One side of the input; a dimension at least. */
static nyx_cl_geometry geometry_of(const side *from) {
  nyx_cl_geometry s = {.n = from->count, .ndim = from->n ? from->n : 1};
  s.shape[0] = 1;
  for (int d = 0; d < from->n; d++) {
    s.shape[d] = from->shape[d];
    s.stride[0][d] = from->stride[d];
  }
  return s;
}

typedef struct reduction {
  nyx_context *ctx;
  opencl_device *device;
  const nyx_reduction *job;
  nyx_cl_geometry kept, reduced;
  int64_t count; /* elements of a result */
  bool narrow;
} reduction;

static void name_kernel(char *key, const reduction *r, nyx_cl_pass pass) {
  const nyx_reduction *job = r->job;
  snprintf(key, NYX_CL_KEY, "reduce %s %d%c%c %d: %d %d", job->row->name, (int)pass,
           r->narrow ? 'i' : 'l', job->index ? 'p' : ' ', (int)job->compute,
           (int)job->in->dtype, job->out ? (int)job->out->dtype : -1);
}

static nyx_status run_pass(reduction *r, nyx_cl_pass pass, const plan *p, void *in,
                           void *parts) {
  const nyx_reduction *job = r->job;
  char key[NYX_CL_KEY];
  cl_kernel kernel;
  name_kernel(key, r, pass);
  if (!(kernel = nyx__cl_known(r->device, key)))
    NYX_TRY(nyx__cl_build(r->ctx, r->device, key,
                          nyx__cl_reduce_source(job, pass, r->narrow), &kernel));
  cl_arguments a = {kernel, 0, 0};
  int32_t down = (int32_t)p->down, rows = p->rows;
  int64_t base = r->ctx->index_base;
  nyx__cl_argument(&a, sizeof in, &in);
  if (pass == NYX_CL_PARTS)
    nyx__cl_argument(&a, sizeof parts, &parts);
  else if (job->out)
    nyx__cl_argument(&a, sizeof(cl_mem), &job->out->storage->data);
  if (pass != NYX_CL_PARTS && job->index)
    nyx__cl_argument(&a, sizeof(cl_mem), &job->index->storage->data);
  nyx__cl_argument(&a, NYX_CL_GROUP * nyx__cl_accumulator(job, r->narrow), NULL);
  nyx__cl_geometry(&a, r->narrow, &r->kept);
  nyx__cl_geometry(&a, r->narrow, &r->reduced);
  nyx__cl_index(&a, r->narrow, p->blocks);
  nyx__cl_argument(&a, sizeof down, &down);
  nyx__cl_index(&a, r->narrow, p->length);
  nyx__cl_argument(&a, sizeof rows, &rows);
  nyx__cl_number(&a, job->compute, (double)r->count);
  nyx__cl_number(&a, job->compute, job->attr[0]);
  nyx__cl_argument(&a, sizeof base, &base);
  if (job->centre) nyx__cl_argument(&a, sizeof(cl_mem), &job->centre->storage->data);
  return nyx__cl_launch(r->ctx, r->device, &a, job->row->name,
                        (size_t)(p->blocks * p->parts));
}

/* Accumulators (part, result) take the input's place. */
static void look_at_parts(reduction *r, int64_t parts) {
  const side results = {1, {r->kept.n}, {1}, r->kept.n};
  const side merged = {1, {parts}, {r->kept.n}, parts};
  nyx_cl_geometry kept = geometry_of(&results);
  for (int k = 1; k < NYX_CL_OPERANDS; k++) kept.offset[k] = r->kept.offset[k];
  r->kept = kept;
  r->reduced = geometry_of(&merged);
}

static nyx_status run(reduction *r, const plan *p) {
  nyx_device *dev = &r->device->base;
  void *in = r->job->in->storage->data, *parts;
  if (p->parts == 1) return run_pass(r, NYX_CL_WHOLE, p, in, NULL);
  size_t item = nyx__cl_accumulator(r->job, r->narrow);
  NYX_TRY(nyx__cl_alloc(r->ctx, dev, (size_t)(p->parts * r->kept.n) * item, &parts));
  nyx_status status = run_pass(r, NYX_CL_PARTS, p, in, parts);
  if (status == NYX_OK) {
    look_at_parts(r, p->parts);
    plan merge = share(r->kept.n, p->parts, false, false);
    status = run_pass(r, NYX_CL_MERGE, &merge, parts, NULL);
  }
  nyx__cl_free(dev, parts);
  return status;
}

nyx_status nyx__cl_reduce(nyx_context *ctx, nyx_device *dev, const nyx_reduction *job) {
  reduction r = {.ctx = ctx, .device = (opencl_device *)dev, .job = job};
  NYX_TRY(nyx__cl_check(ctx, r.device, job->compute));
  side kept = side_of(job->in, job->dims, false, false);
  side reduced = side_of(job->in, job->dims, true, !job->index);
  r.count = reduced.count;
  r.kept = geometry_of(&kept);
  r.reduced = geometry_of(&reduced);
  r.kept.offset[0] = job->in->offset;
  if (job->index) r.kept.offset[1] = job->index->offset;
  if (job->centre) r.kept.offset[2] = job->centre->offset;
  if (job->out) r.kept.offset[NYX_CL_OPERANDS - 1] = job->out->offset;
  r.narrow = nyx__cl_narrow(&r.kept) && nyx__cl_narrow(&r.reduced);
  bool rows = kept.n == 0 || llabs(inner_stride(&reduced)) <= llabs(inner_stride(&kept));
  plan p = share(kept.count, reduced.count, rows, true);
  pthread_mutex_lock(&r.device->lock);
  nyx_status status = run(&r, &p);
  pthread_mutex_unlock(&r.device->lock);
  return status;
}
