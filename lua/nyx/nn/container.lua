-- nn.Sequential, nn.ModuleList, and the layers without parameters that only reshape.
local class = require "nyx.class"
local check = require "nyx.check"
local Module = require "nyx.nn.module"

local M = {}

--- Modules one after the other, named 1, 2, ...
---@class nyx.nn.Sequential: nyx.nn.Module
local Sequential = class("Sequential", Module)
M.Sequential = Sequential

---@param ... nyx.nn.Module
function Sequential:init(...)
  for i = 1, select("#", ...) do self:append((select(i, ...))) end
end

--- Adds a module at the end.
---@param module nyx.nn.Module
---@return nyx.nn.Sequential self
function Sequential:append(module)
  if not Module.is_module(module) then
    check.fail("nn.%s: element %d is %s, expected a module", self:class_name(), #self + 1,
      check.describe(module))
  end
  self[#self + 1] = module
  return self
end

function Sequential:forward(x)
  for i = 1, #self do x = self[i](x) end
  return x
end

--- Modules in a list that takes part in the state; without a forward of its own.
---@class nyx.nn.ModuleList: nyx.nn.Module
local ModuleList = class("ModuleList", Module)
M.ModuleList = ModuleList

---@param modules? nyx.nn.Module[]
function ModuleList:init(modules)
  for i = 1, #check.type("nn.ModuleList", "modules", modules or {}, "table") do
    self:append(modules[i])
  end
end

ModuleList.append = Sequential.append

--- Gives its input back.
---@class nyx.nn.Identity: nyx.nn.Module
local Identity = class("Identity", Module)
M.Identity = Identity

function Identity:forward(x) -- luacheck: no self
  return x
end

--- Joins the dimensions from start_dim (2) to end_dim (the last).
---@class nyx.nn.Flatten: nyx.nn.Module
local Flatten = class("Flatten", Module)
M.Flatten = Flatten

---@param start_dim? integer
---@param end_dim? integer
function Flatten:init(start_dim, end_dim)
  self.start_dim = start_dim or 2
  self.end_dim = end_dim or -1
end

function Flatten:forward(x)
  return x:flatten(self.start_dim, self.end_dim)
end

function Flatten:extra_repr()
  return ("start_dim=%d, end_dim=%d"):format(self.start_dim, self.end_dim)
end

return M
