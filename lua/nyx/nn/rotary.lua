-- nn.RotaryEmbedding: the tables of x:rotary, made once, also for scaled variants.
-- Read next: core/op/rotary.c.
local class = require "nyx.class"
local check = require "nyx.check"
local Module = require "nyx.nn.module"
local nyx = require "nyx"

local M = {}

local where = "nn.RotaryEmbedding"

-- Tables by module and dtype. They follow from the options: not part of the state, and never
-- rounded to a half type with it.
local made = setmetatable({}, { __mode = "k" })

-- Speeds are divided by factor as a whole (Chen et al.: "Extending context window of large
-- language models via positional interpolation", 2023), or, as in Llama 3.1, those whose turn
-- takes longer than the length that the model was trained on, with a ramp between.
local scaled = {
  linear = function(speed, s) return speed / s.factor end,
  llama3 = function(speed, s)
    local turns = s.original_max_position * speed / (2 * math.pi)
    local ramp = (turns - s.low_freq_factor) / (s.high_freq_factor - s.low_freq_factor)
    ramp = math.max(0, math.min(1, ramp))
    return (1 - ramp) * speed / s.factor + ramp * speed
  end,
}

local function read_scaling(scaling)
  if scaling == nil then return nil end
  local own = check.options(where .. ": scaling", scaling,
    "type factor low_freq_factor high_freq_factor original_max_position")
  return {
    type = check.choice(where, "scaling.type", own.type, "linear llama3"),
    factor = check.number(where, "scaling.factor", own.factor or 8, 1e-6),
    low_freq_factor = check.number(where, "scaling.low_freq_factor", own.low_freq_factor or 1, 0),
    high_freq_factor = check.number(where, "scaling.high_freq_factor", own.high_freq_factor or 4,
      (own.low_freq_factor or 1) + 1e-6),
    original_max_position = check.integer(where, "scaling.original_max_position",
      own.original_max_position or 8192),
  }
end

--- Rotary position embedding (Su et al.: "RoFormer", 2021) of the last two dimensions of x
--- (.., length, features). It has no parameters and no state.
---@class nyx.nn.RotaryEmbedding: nyx.nn.Module
local RotaryEmbedding = class("RotaryEmbedding", Module)
M.RotaryEmbedding = RotaryEmbedding

---@param dim integer how many features turn, an even number
---@param options? {base: number, interleaved: boolean, scaling: table} base: 10000; interleaved:
---  pairs are neighbours, as in GPT-J, else one of each half, as in GPT-NeoX; scaling:
---  {type = "linear", factor = 8} or {type = "llama3", factor = 8, low_freq_factor = 1,
---  high_freq_factor = 4, original_max_position = 8192}
function RotaryEmbedding:init(dim, options)
  options = check.options(where, options, "base interleaved scaling")
  self.dim = check.integer(where, "dim", dim, 2)
  if dim % 2 ~= 0 then check.fail("%s: 'dim' is %d, expected an even number", where, dim) end
  self.base = check.number(where, "base", options.base or 10000, 1e-6)
  self.interleaved = options.interleaved or false
  self.scaling = read_scaling(options.scaling)
end

--- Cosines and sines of positions 1..length or more: two tensors (positions, dim / 2).
---@param length integer
---@param dtype? string "float32" when left out
---@return nyx.Tensor cos
---@return nyx.Tensor sin
function RotaryEmbedding:tables(length, dtype)
  dtype = dtype == "float64" and dtype or "float32"
  local own = made[self] or {}
  made[self] = own
  local got = own[dtype]
  if not got or got.length < length then
    local speeds, n = {}, 64
    while n < length do n = 2 * n end
    for i = 1, self.dim / 2 do
      local speed = self.base ^ (-2 * (i - 1) / self.dim)
      speeds[i] = self.scaling and scaled[self.scaling.type](speed, self.scaling) or speed
    end
    nyx.no_grad(function()
      local wide = { dtype = "float64" }
      local angles = nyx.arange(0, n, wide):unsqueeze(2) * nyx.tensor(speeds, wide)
      got = { length = n, cos = angles:cos():to(dtype), sin = angles:sin():to(dtype) }
    end)
    own[dtype] = got
  end
  return got.cos, got.sin
end

---@param x nyx.Tensor (.., length, features)
---@param options? {offset: integer, positions: nyx.Tensor} offset: how many positions come
---  before, as those in a cache; positions: integers (.., length), 1, 2, .. when left out
---@return nyx.Tensor
function RotaryEmbedding:forward(x, options)
  options = check.options(where, options, "offset positions")
  local offset, positions = options.offset or 0, options.positions
  check.integer(where, "offset", offset, 0)
  local length = check.tensor(where, "x", x):size(-2)
  if positions ~= nil then
    check.tensor(where, "positions", positions)
    length = positions:numel() > 0 and positions:max():item() or 0
  end
  local cos, sin = self:tables(offset + length, x.dtype)
  return x:rotary(positions, cos, sin, { offset = offset, interleaved = self.interleaved })
end

function RotaryEmbedding:extra_repr()
  return ("dim=%d, base=%g, interleaved=%s%s"):format(self.dim, self.base,
    tostring(self.interleaved), self.scaling and ", scaling=" .. self.scaling.type or "")
end

return M
