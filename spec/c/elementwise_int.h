/* The tests of elementwise_int32_test.c and elementwise_int64_test.c. */

static T random_int(int how) {
  static const double special[] = {0, 1, -1, 2, -2, 3, NYX_T_BITS - 1, NYX_T_BITS};
  switch (how) {
    case 0: return (T)random_bits();
    case 1: return (T)special[random_bits() % 8];
    case 2: return (T)((uint64_t)1 << (NYX_T_BITS - 1)) - (T)(random_bits() & 1);
    default: return (T)(random_bits() % 33) - 16;
  }
}

static void check_row(int id, const nyx_cpu_kernels *k) {
  const nyx_op *op = op_of(id);
  trial t = {.row = op->row};
  nyx_elementwise_fn fn = k->elementwise->rows[NYX_INT_COMPUTE][id][0];
  CHECK_AT((fn != NULL) == ((t.row->types & NYX_ROW_INTS) != 0), op->name, " on %s",
           k->name);
  if (!fn || !oracles[id]) return;
  bool bytes = t.row->result_bool, bounds = op->n_attrs == 2;
  for (int round = 0; round < 40; round++)
    for (t.n = 0; t.n <= MOST; t.n++) {
      _Alignas(64) unsigned char out[MOST * 8 + 8];
      size_t end = (size_t)t.n * (bytes ? 1 : sizeof(T));
      t.attr[0] = bounds ? -3 : 2;
      t.attr[1] = 5;
      for (int v = 0; v < 5; v++)
        for (int64_t i = 0; i < t.n; i++) t.value[v][i] = random_int((round + v) & 3);
      memset(out, 0xa5, sizeof out);
      run(&t, fn, !bytes && round % 5 == 0, out);
      CHECK_AT(out[end] == 0xa5, op->name, ": wrote beyond element %d", (int)t.n);
      for (int64_t i = 0; i < t.n; i++) {
        T want = expected(&t, i), got = bytes ? out[i] : ((T *)out)[i];
        CHECK_AT(got == want, op->name,
                 " on %s: x %lld y %lld z %lld gave %lld, expected %lld", k->name,
                 (long long)t.value[1][i], (long long)t.value[2][i],
                 (long long)t.value[3][i], (long long)got, (long long)want);
      }
    }
}
static void rows(void) {
  for (int path = 0; path < 3; path++) {
    const nyx_cpu_kernels *k = nyx__cpu_path_find(paths[path]);
    for (int id = 0; k && id < NYX_KERNEL_COUNT; id++) check_row(id, k);
  }
}

/* Quotients that are whole, or miss that by one, of numbers of every size. */
static void near_multiples(void) {
  static const int ids[] = {NYX_KERNEL_floor_divide, NYX_KERNEL_remainder,
                            NYX_KERNEL_fmod};
  for (int path = 0; path < 3; path++) {
    const nyx_cpu_kernels *k = nyx__cpu_path_find(paths[path]);
    for (int round = 0; k && round < 3 * 4000; round++) {
      trial t = {.row = op_of(ids[round % 3])->row, .n = MOST};
      for (int64_t i = 0; i < t.n; i++) {
        const int bits = (int)(random_bits() % NYX_T_BITS);
        const T by = (T)((int64_t)random_bits() >> (64 - NYX_T_BITS + bits));
        const T times = (T)((int64_t)random_bits() >> (63 - bits));
        t.value[1][i] = by * times + (T)(random_bits() % 3) - 1;
        t.value[2][i] = by;
      }
      T out[MOST];
      run(&t, k->elementwise->rows[NYX_INT_COMPUTE][t.row->id][0], false, out);
      for (int64_t i = 0; i < t.n; i++)
        CHECK_AT(out[i] == expected(&t, i), op_of(t.row->id)->name,
                 " on %s: %lld by %lld gave %lld, expected %lld", k->name,
                 (long long)t.value[1][i], (long long)t.value[2][i], (long long)out[i],
                 (long long)expected(&t, i));
    }
  }
}

/* Attributes beyond the type's range are cut to it. */
static void attributes(void) {
  for (int path = 0; path < 3; path++) {
    const nyx_cpu_kernels *k = nyx__cpu_path_find(paths[path]);
    if (!k) continue;
    T x[3] = {NYX_LOWEST, 7, NYX_HIGHEST}, out[3];
    const void *in[5] = {x, x, x, x, x};
    const double wide[2] = {-INFINITY, INFINITY}, past[2] = {-1e300, 1e300};
    nyx_elementwise_fn clamp = k->elementwise->rows[NYX_INT_COMPUTE][NYX_KERNEL_clamp][0];
    clamp(3, in, out, wide);
    CHECK(memcmp(x, out, sizeof x) == 0);
    clamp(3, in, out, past);
    CHECK(memcmp(x, out, sizeof x) == 0);
  }
}

int main(void) {
  RUN(rows);
  RUN(near_multiples);
  RUN(attributes);
  return check_done();
}
