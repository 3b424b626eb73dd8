-- nn.MultiheadAttention. Read next: core/op/attention.c, the op it is made of.
local class = require "nyx.class"
local check = require "nyx.check"
local initial = require "nyx.nn.initial"
local linear = require "nyx.nn.linear"
local Module = require "nyx.nn.module"
local nyx = require "nyx"

local M = {}

local where = "nn.MultiheadAttention"

--- Attention of several heads between projections (Vaswani et al.: "Attention is all you need",
--- 2017), with PyTorch's names of parameters. Unlike there, batch_first is true when left out,
--- and is_causal needs no mask beside it. As there, true in a mask of this layer hides a key (in
--- nyx.scaled_dot_product_attention it lets it take part).
---@class nyx.nn.MultiheadAttention: nyx.nn.Module
local MultiheadAttention = class("MultiheadAttention", Module)
M.MultiheadAttention = MultiheadAttention

-- The weights of q, k and v are one parameter where all have embed_dim features.
local function add_weights(self, dtype)
  local sizes = { q = self.embed_dim, k = self.kdim, v = self.vdim }
  local rows = { q = self.embed_dim, k = self.kv_dim, v = self.kv_dim }
  if self.kdim == self.embed_dim and self.vdim == self.embed_dim then
    self.in_proj_weight = Module.Parameter(nyx.empty(
      { self.embed_dim + 2 * self.kv_dim, self.embed_dim }, dtype))
    initial.xavier_uniform_(self.in_proj_weight)
    return
  end
  for _, name in ipairs { "q", "k", "v" } do
    local weight = Module.Parameter(nyx.empty({ rows[name], sizes[name] }, dtype))
    self[name .. "_proj_weight"] = initial.xavier_uniform_(weight)
  end
end

---@param embed_dim integer features of the query and of the result
---@param num_heads integer which share the features evenly
---@param options? {dropout: number, bias: boolean, kdim: integer, vdim: integer,
---  batch_first: boolean, num_kv_heads: integer, rotary: nyx.nn.RotaryEmbedding, dtype: string}
---  dropout: of the weights, in training; kdim, vdim: features of key and value; batch_first:
---  (batch, length, features), the default, or (length, batch, features); num_kv_heads: heads
---  of keys and values, each for a group of queries' heads (Ainslie et al.: "GQA", 2023), as
---  many as queries have when left out; rotary: turns queries and keys by their positions
function MultiheadAttention:init(embed_dim, num_heads, options)
  options = check.options(where, options,
    "dropout bias kdim vdim batch_first num_kv_heads rotary dtype")
  self.embed_dim = check.integer(where, "embed_dim", embed_dim)
  self.num_heads = check.integer(where, "num_heads", num_heads)
  if embed_dim % num_heads ~= 0 then
    check.fail("%s: 'embed_dim' is %d, expected a multiple of 'num_heads', %d", where, embed_dim,
      num_heads)
  end
  local kv_heads = check.integer(where, "num_kv_heads", options.num_kv_heads or num_heads)
  if num_heads % kv_heads ~= 0 then
    check.fail("%s: 'num_kv_heads' is %d, expected a divisor of 'num_heads', %d", where,
      kv_heads, num_heads)
  end
  self.num_kv_heads, self.kv_dim = kv_heads, kv_heads * embed_dim / num_heads
  self.dropout = check.number(where, "dropout", options.dropout or 0, 0, 1)
  self.kdim = check.integer(where, "kdim", options.kdim or embed_dim)
  self.vdim = check.integer(where, "vdim", options.vdim or embed_dim)
  self.batch_first = options.batch_first ~= false
  local dtype = { dtype = options.dtype }
  add_weights(self, dtype)
  if options.rotary then self.rotary = options.rotary end
  if options.bias ~= false then
    self.in_proj_bias = Module.Parameter(nyx.zeros({ embed_dim + 2 * self.kv_dim }, dtype))
  end
  self.out_proj = linear.Linear(embed_dim, embed_dim,
    { bias = options.bias, dtype = options.dtype })
  if self.out_proj.bias then initial.zeros_(self.out_proj.bias) end
end

-- (batch, length, features) as (batch, heads, length, features of a head)
local function heads_of(x, heads)
  return x:reshape(x:size(1), x:size(2), heads, -1):transpose(2, 3)
end

-- Where the rows of projection number i begin, how many they are and heads they make: of the
-- query, the key, the value.
local function part_of(self, i)
  if i == 1 then return 1, self.embed_dim, self.num_heads end
  return self.embed_dim + (i - 2) * self.kv_dim + 1, self.kv_dim, self.num_kv_heads
end

local function projected(self, i, x)
  local start, size, heads = part_of(self, i)
  local bias = self.in_proj_bias and self.in_proj_bias:narrow(1, start, size)
  local weight = self.in_proj_weight and self.in_proj_weight:narrow(1, start, size)
    or self[("qkv"):sub(i, i) .. "_proj_weight"]
  return heads_of(x:linear(weight, bias), heads)
end

-- All three; one product where they are of the same tensor.
local function project(self, query, key, value)
  if not (rawequal(query, key) and rawequal(key, value) and self.in_proj_weight) then
    return projected(self, 1, query), projected(self, 2, key), projected(self, 3, value)
  end
  local all, parts = query:linear(self.in_proj_weight, self.in_proj_bias), {}
  for i = 1, 3 do
    local start, size, heads = part_of(self, i)
    parts[i] = heads_of(all:narrow(3, start, size), heads)
  end
  return parts[1], parts[2], parts[3]
end

-- Queries and keys turned by their positions, keys and values behind those in the cache, and how
-- many positions that had.
local function placed(self, q, k, v, cache)
  local before = cache and cache.length or 0
  if self.rotary then
    local options = { offset = before }
    q, k = self.rotary(q, options), self.rotary(k, options)
  end
  if cache then k, v = cache:append(k, v) end
  return q, k, v, before
end

-- A mask as numbers to add to scores.
local function additive(mask, like)
  if mask.dtype ~= "bool" then return mask end
  return nyx.zeros({}, { dtype = like.dtype }):masked_fill(mask, -math.huge)
end

-- What both masks together are in the sense of scaled_dot_product_attention, or nil.
local function merged(self, options, q, k)
  local mask, padding = options.attn_mask, options.key_padding_mask
  if mask then
    check.tensor(where, "attn_mask", mask)
    if mask.ndim == 3 then
      mask = mask:reshape(-1, self.num_heads, mask:size(2), mask:size(3))
    elseif mask.ndim ~= 2 then
      check.fail("%s: 'attn_mask' is %s, expected (queries, keys) or (batch * heads, queries, "
        .. "keys)", where, check.describe(mask))
    end
  end
  if padding then
    check.tensor(where, "key_padding_mask", padding)
    local keys = k:size(3)
    if padding:numel() ~= q:size(1) * keys or padding:size(-1) ~= keys then
      check.fail("%s: 'key_padding_mask' is %s, expected (batch, keys), here %dx%d", where,
        check.describe(padding), q:size(1), keys)
    end
    padding = padding:reshape(q:size(1), 1, 1, keys)
  end
  if mask and padding then
    if mask.dtype ~= "bool" or padding.dtype ~= "bool" then
      return additive(mask, q) + additive(padding, q)
    end
    mask = mask:logical_or(padding)
  end
  mask = mask or padding
  return mask and mask.dtype == "bool" and mask:logical_not() or mask
end

-- Through the matrix of all weights, which need_weights asks for.
local function with_weights(self, q, k, v, mask, causal, before)
  local group = self.num_heads / self.num_kv_heads
  if group > 1 then k, v = k:repeat_interleave(group, 2), v:repeat_interleave(group, 2) end
  local scores = q:matmul(k:transpose(-2, -1)) * q:size(-1) ^ -0.5
  if mask and mask.dtype == "bool" then
    scores = scores:masked_fill(mask:logical_not(), -math.huge)
  elseif mask then
    scores = scores + mask
  end
  if causal then
    local later = nyx.ones({ q:size(-2), k:size(-2) }, { dtype = "bool" }):triu(before + 1)
    scores = scores:masked_fill(later, -math.huge)
  end
  local weights = scores:softmax(-1)
  if self.training and self.dropout > 0 then weights = weights:dropout(self.dropout) end
  return weights:matmul(v), weights
end

---@param query nyx.Tensor (batch, queries, features), or without batch
---@param key? nyx.Tensor (batch, keys, kdim); the query when left out
---@param value? nyx.Tensor (batch, keys, vdim); the key when left out
---@param options? {key_padding_mask: nyx.Tensor, attn_mask: nyx.Tensor, is_causal: boolean,
---  need_weights: boolean, average_attn_weights: boolean, cache: nyx.nn.KVCache} masks: true
---  hides a key, numbers are added; need_weights (false): also the weights, (batch, queries,
---  keys), averaged over heads or (average_attn_weights = false) for each of them; cache: keys
---  and values go behind those that are in it, and queries attend to all of them, with is_causal
---  as the ones that come next
---@return nyx.Tensor
---@return nyx.Tensor? weights
function MultiheadAttention:forward(query, key, value, options)
  options = check.options(where, options,
    "key_padding_mask attn_mask is_causal need_weights average_attn_weights cache")
  key = key or query
  value = value or key
  local single, same = query:dim() == 2, rawequal(query, key) and rawequal(key, value)
  local function batched(x)
    if single then return x:unsqueeze(1) end
    return self.batch_first and x or x:transpose(1, 2)
  end
  query = batched(query)
  key, value = same and query or batched(key), same and query or batched(value)
  local q, k, v = project(self, query, key, value)
  local before
  q, k, v, before = placed(self, q, k, v, options.cache)
  local mask, causal = merged(self, options, q, k), options.is_causal or false
  local y, weights
  if options.need_weights then
    y, weights = with_weights(self, q, k, v, mask, causal, before)
  else
    y = nyx.scaled_dot_product_attention(q, k, v, { attn_mask = mask, is_causal = causal,
      offset = before, dropout_p = self.training and self.dropout or 0 })
  end
  y = self.out_proj(y:transpose(2, 3):reshape(y:size(1), y:size(3), self.embed_dim))
  y = single and y:squeeze(1) or self.batch_first and y or y:transpose(1, 2)
  if not options.need_weights then return y end
  if options.average_attn_weights ~= false then weights = weights:mean(2) end
  return y, single and weights:squeeze(1) or weights
end

function MultiheadAttention:extra_repr()
  return ("embed_dim=%d, num_heads=%d, batch_first=%s"):format(self.embed_dim, self.num_heads,
    tostring(self.batch_first))
end

return M
