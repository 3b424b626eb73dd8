-- require "nyx.example" (or a first use of nyx.example): brings the op softclip, from then on
-- a function of nyx and a method of tensors; and a layer made of it. Read next:
-- src/softclip.c.
local nyx = require "nyx"
require "nyx.example.core"

local M = {}

--- The layer limit * tanh(x / limit), for nyx.nn.Sequential.
---@class nyx.example.SoftClip: nyx.nn.Module
---@overload fun(limit?: number): nyx.example.SoftClip
M.SoftClip = nyx.class("SoftClip", nyx.nn.Module)

---@param limit? number 1
function M.SoftClip:init(limit)
  self.limit = limit or 1
end

---@param x nyx.Tensor
---@return nyx.Tensor
function M.SoftClip:forward(x)
  return nyx.softclip(x, { limit = self.limit })
end

return M
