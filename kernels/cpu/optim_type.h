/* The loops of optim.c over one element type T; included once for each. */

static void TYPED(sgd)(const nyx_optim_job *job, int64_t begin, int64_t end) {
  T *restrict p = job->p;
  const T *restrict g = job->g;
  T *restrict v = job->state[0];
  const T lr = (T)job->lr, decay = (T)job->decay, sign = (T)job->sign;
  const T momentum = (T)job->momentum, keep = (T)job->keep;
  if (!v) {
    for (int64_t i = begin; i < end; i++) p[i] -= lr * (sign * g[i] + decay * p[i]);
  } else if (job->nesterov) {
    for (int64_t i = begin; i < end; i++) {
      T d = sign * g[i] + decay * p[i];
      v[i] = momentum * v[i] + keep * d;
      p[i] -= lr * (d + momentum * v[i]);
    }
  } else {
    for (int64_t i = begin; i < end; i++) {
      T d = sign * g[i] + decay * p[i];
      v[i] = momentum * v[i] + keep * d;
      p[i] -= lr * v[i];
    }
  }
}

static void TYPED(adam)(const nyx_optim_job *job, int64_t begin, int64_t end) {
  T *restrict p = job->p;
  const T *restrict g = job->g;
  T *restrict mean = job->state[0], *restrict square = job->state[1];
  T *restrict most = job->state[2];
  const T lr = (T)job->lr, decay = (T)job->decay, sign = (T)job->sign;
  const T keep = (T)job->keep, beta2 = (T)job->beta2, rest2 = (T)(1 - job->beta2);
  const T shrink = (T)job->shrink, root = (T)job->root, eps = (T)job->eps;
  for (int64_t i = begin; i < end; i++) {
    T d = sign * g[i] + decay * p[i];
    mean[i] += keep * (d - mean[i]);
    square[i] = beta2 * square[i] + rest2 * d * d;
    T scale = square[i];
    if (most) scale = most[i] = most[i] > scale ? most[i] : scale; /* amsgrad */
    p[i] = shrink * p[i] - lr * mean[i] / (sqrt(scale) * root + eps);
  }
}

static void TYPED(rmsprop)(const nyx_optim_job *job, int64_t begin, int64_t end) {
  T *restrict p = job->p;
  const T *restrict g = job->g;
  T *restrict square = job->state[0], *restrict v = job->state[1];
  T *restrict mean = job->state[2];
  const T lr = (T)job->lr, decay = (T)job->decay, sign = (T)job->sign;
  const T momentum = (T)job->momentum, keep = (T)job->keep, rest = (T)(1 - job->keep);
  const T eps = (T)job->eps;
  for (int64_t i = begin; i < end; i++) {
    T d = sign * g[i] + decay * p[i];
    square[i] = keep * square[i] + rest * d * d;
    T scale = square[i];
    if (mean) { /* centered */
      mean[i] += rest * (d - mean[i]);
      scale -= mean[i] * mean[i];
    }
    d /= sqrt(scale) + eps;
    if (v) d = v[i] = momentum * v[i] + d;
    p[i] -= lr * d;
  }
}
