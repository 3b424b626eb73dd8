-- nn.KVCache: what attention keeps of the positions it has seen, for decoding.
-- Read next: attention.lua.
local class = require "nyx.class"
local check = require "nyx.check"
local nyx = require "nyx"

local where = "nn.KVCache"

--- Keys and values of one attention layer, (batch, heads, max_length, features) in memory that
--- is made once. Appending writes in place; what attention gets are views of the filled part.
--- It records no gradients.
---@class nyx.nn.KVCache
---@field length integer positions that are filled
---@field max_length integer
local KVCache = class "KVCache"

---@param batch integer
---@param heads integer of keys and values
---@param max_length integer positions there is room for
---@param features integer of a head
---@param options? {dtype: string, value_features: integer, grow: boolean} dtype: "float32";
---  value_features: of a head of values, where they differ; grow: twice as much room, and a
---  copy, when it is full, instead of an error
function KVCache:init(batch, heads, max_length, features, options)
  options = check.options(where, options, "dtype value_features grow")
  local values = check.integer(where, "value_features", options.value_features or features)
  check.integer(where, "features", features)
  local shape = { check.integer(where, "batch", batch), check.integer(where, "heads", heads),
    check.integer(where, "max_length", max_length), features }
  local dtype = { dtype = options.dtype }
  self.keys = nyx.zeros(shape, dtype)
  shape[4] = values
  self.values = nyx.zeros(shape, dtype)
  self.length, self.max_length, self.grow = 0, max_length, options.grow or false
end

-- Room for `needed` positions.
local function make_room(self, needed)
  if not self.grow then
    check.fail("%s: %d positions are needed and there is room for %d; make it longer, or with "
      .. "{grow = true}, or truncate(0) it", where, needed, self.max_length)
  end
  while self.max_length < needed do self.max_length = 2 * self.max_length end
  for _, name in ipairs { "keys", "values" } do
    local old, shape = self[name], self[name].shape
    shape[3] = self.max_length
    self[name] = nyx.zeros(shape, { dtype = old.dtype })
    if self.length > 0 then
      self[name]:narrow(3, 1, self.length):copy_(old:narrow(3, 1, self.length))
    end
  end
end

local function check_part(self, name, part)
  local own, shape = self[name], check.tensor(where, name, part).shape
  local fits = #shape == 4 and part.dtype == own.dtype
  for _, d in ipairs { 1, 2, 4 } do fits = fits and shape[d] == own:size(d) end
  if not fits then
    check.fail("%s: '%s' is %s of %s, expected (%d, %d, length, %d) of %s", where, name,
      check.describe(part), part.dtype, own:size(1), own:size(2), own:size(4), own.dtype)
  end
  if nyx.is_grad_enabled() and part.requires_grad then
    check.fail("%s: '%s' requires a gradient, which a cache does not record; decode within "
      .. "nyx.no_grad", where, name)
  end
end

--- Writes the keys and values of the next positions behind those that are there.
---@param keys nyx.Tensor (batch, heads, length, features)
---@param values nyx.Tensor (batch, heads, length, value features)
---@return nyx.Tensor keys a view of all that are filled now
---@return nyx.Tensor values the same
function KVCache:append(keys, values)
  check_part(self, "keys", keys)
  check_part(self, "values", values)
  local n, start = keys:size(3), self.length
  if values:size(3) ~= n then
    check.fail("%s: %d keys and %d values, expected as many of both", where, n, values:size(3))
  end
  if start + n > self.max_length then make_room(self, start + n) end
  if n > 0 then
    self.keys:narrow(3, start + 1, n):copy_(keys)
    self.values:narrow(3, start + 1, n):copy_(values)
  end
  self.length = start + n
  return self.keys:narrow(3, 1, self.length), self.values:narrow(3, 1, self.length)
end

--- Forgets all positions behind the first `length`; 0 empties the cache for the next text.
---@param length integer
---@return nyx.nn.KVCache self
function KVCache:truncate(length)
  check.integer(where, "length", length, 0)
  if length > self.length then
    check.fail("%s: truncate to %d positions, but only %d are filled", where, length, self.length)
  end
  self.length = length
  return self
end

return KVCache
