-- nn.SwiGLU and nn.GEGLU: feed-forward layers with a gate. Read next: core/op/glu.c.
local class = require "nyx.class"
local check = require "nyx.check"
local linear = require "nyx.nn.linear"
local Module = require "nyx.nn.module"

local M = {}

-- The layer whose gates go through an activation of nyx.glu.
local function gated(name, activation)
  local Gated = class(name, Module)
  local where = "nn." .. name
  M[name] = Gated

  ---@param dim integer features of the input
  ---@param hidden integer features between: values, and as many gates
  ---@param options? {out_features: integer, bias: boolean, dtype: string} out_features: of the
  ---  result, dim when left out
  function Gated:init(dim, hidden, options)
    options = check.options(where, options, "out_features bias dtype")
    self.dim = check.integer(where, "dim", dim)
    self.hidden = check.integer(where, "hidden", hidden)
    local own = { bias = options.bias, dtype = options.dtype }
    self.in_proj = linear.Linear(dim, 2 * hidden, own)
    self.out_proj = linear.Linear(hidden, check.integer(where, "out_features",
      options.out_features or dim), own)
    self.options = { activation = activation }
  end

  function Gated:forward(x)
    return self.out_proj(self.in_proj(x):glu(self.options))
  end

  function Gated:extra_repr()
    return ("dim=%d, hidden=%d"):format(self.dim, self.hidden)
  end
end

--- out_proj(up * silu(gate)), as in Llama (Shazeer: "GLU variants improve transformer", 2020).
--- The first half of the rows of in_proj.weight gives up, the second half gate, in one product.
---@class nyx.nn.SwiGLU: nyx.nn.Module
gated("SwiGLU", "silu")

--- The same with gelu.
---@class nyx.nn.GEGLU: nyx.nn.Module
gated("GEGLU", "gelu")

return M
