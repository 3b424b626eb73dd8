/* The forms that a storage keeps: a short list under a lock, newest first. Forms are made
 * outside of it; of two threads that make the same one the second gives its own up. Read
 * next: packed.h. */
#include "packed.h"

#include <pthread.h>
#include <string.h>

/* A tensor that is packed from ever other places must not fill memory. */
#define MOST 8

struct nyx__forms {
  pthread_mutex_t lock;
  atomic_bool on;
  nyx__packed *first;
};

bool nyx__forms_on(const nyx__forms *f) {
  return atomic_load_explicit(&f->on, memory_order_relaxed);
}

void nyx__packed_release(nyx__packed *p) {
  if (!p || atomic_fetch_sub_explicit(&p->refs, 1, memory_order_acq_rel) != 1) return;
  nyx_memory_free(p->data);
  nyx_memory_free(p);
}

static nyx__packed *retain(nyx__packed *p) {
  atomic_fetch_add_explicit(&p->refs, 1, memory_order_relaxed);
  return p;
}

/* Takes what is out of date from the list, all where `all`, and what is too much. */
static void drop(nyx__forms *f, uint32_t version, bool all) {
  int n = 0;
  for (nyx__packed **at = &f->first; *at;) {
    nyx__packed *p = *at;
    if (all || p->version != version || ++n > MOST) {
      *at = p->next;
      nyx__packed_release(p);
    } else {
      at = &p->next;
    }
  }
}

static bool equal(const nyx__packed_key *a, const nyx__packed_key *b) {
  return a->kind == b->kind && a->kernel == b->kernel && a->from == b->from &&
         memcmp(a->size, b->size, sizeof a->size) == 0;
}

/* The form in the list, retained; the lock is held. */
static nyx__packed *find(const nyx__forms *f, const nyx__packed_key *key,
                         uint32_t version) {
  for (nyx__packed *p = f->first; p; p = p->next)
    if (p->version == version && equal(&p->key, key)) return retain(p);
  return NULL;
}

static nyx__packed *new_form(const nyx__packed_key *key, uint32_t version, size_t bytes) {
  nyx__packed *p = nyx_memory_alloc(sizeof *p);
  if (!p) return NULL;
  *p = (nyx__packed){.key = *key, .version = version, .bytes = bytes};
  atomic_init(&p->refs, 1);
  if ((p->data = nyx_memory_alloc(bytes))) return p;
  nyx_memory_free(p);
  return NULL;
}

nyx__packed *nyx__packed_get(nyx_storage *s, const nyx__packed_key *key, size_t bytes,
                             bool (*make)(void *arg, void *data), void *arg) {
  nyx__forms *f = atomic_load_explicit(&s->forms, memory_order_acquire);
  if (!f || !nyx__forms_on(f)) return NULL;
  uint32_t version = atomic_load_explicit(&s->version, memory_order_relaxed);
  pthread_mutex_lock(&f->lock);
  nyx__packed *p = find(f, key, version);
  if (!p) drop(f, version, false); /* before more memory is asked for */
  pthread_mutex_unlock(&f->lock);
  if (p || !(p = new_form(key, version, bytes))) return p;
  if (!make(arg, p->data)) {
    nyx__packed_release(p);
    return NULL;
  }
  pthread_mutex_lock(&f->lock);
  nyx__packed *other = find(f, key, version);
  if (!other && nyx__forms_on(f)) {
    p->next = f->first;
    f->first = retain(p);
    drop(f, version, false);
  }
  pthread_mutex_unlock(&f->lock);
  if (!other) return p;
  nyx__packed_release(p);
  return other;
}

void nyx__forms_free(nyx__forms *f) {
  if (!f) return;
  drop(f, 0, true);
  pthread_mutex_destroy(&f->lock);
  nyx_memory_free(f);
}

static nyx_status new_forms(nyx_context *ctx, nyx_storage *s, nyx__forms **out) {
  nyx__forms *f = nyx_memory_alloc(sizeof *f), *none = NULL;
  if (!f) return nyx__no_memory(ctx, sizeof *f);
  pthread_mutex_init(&f->lock, NULL);
  atomic_init(&f->on, false);
  f->first = NULL;
  *out = f;
  if (atomic_compare_exchange_strong(&s->forms, &none, f)) return NYX_OK;
  nyx__forms_free(f); /* another thread was first */
  *out = none;
  return NYX_OK;
}

nyx_status nyx_tensor_keep_packed(nyx_context *ctx, nyx_tensor *t, bool on) {
  nyx_storage *s = t->storage;
  nyx__forms *f = atomic_load_explicit(&s->forms, memory_order_acquire);
  if (!f && !on) return NYX_OK;
  if (!f) NYX_TRY(new_forms(ctx, s, &f));
  pthread_mutex_lock(&f->lock);
  atomic_store(&f->on, on);
  if (!on) drop(f, 0, true);
  pthread_mutex_unlock(&f->lock);
  return NYX_OK;
}

bool nyx_tensor_keeps_packed(const nyx_tensor *t) {
  return nyx__keeps_packed(t->storage);
}

size_t nyx_tensor_packed_bytes(const nyx_tensor *t) {
  nyx__forms *f = atomic_load_explicit(&t->storage->forms, memory_order_acquire);
  size_t bytes = 0;
  if (!f) return 0;
  pthread_mutex_lock(&f->lock);
  for (const nyx__packed *p = f->first; p; p = p->next) bytes += p->bytes;
  pthread_mutex_unlock(&f->lock);
  return bytes;
}
