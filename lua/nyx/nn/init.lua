-- nyx.nn: layers, containers, losses, starting values. A model derives from nn.Module:
--   local Net = nyx.class("Net", nn.Module)
--   function Net:init() self.hidden = nn.Linear(64, 32) end
--   function Net:forward(x) return self.hidden(x):relu() end
-- Read next: module.lua.
local check = require "nyx.check"
local Module = require "nyx.nn.module"
local segments = require "nyx.nn.segments"

local M = {
  Module = Module,
  Parameter = Module.Parameter,
  init = require "nyx.nn.initial",
  utils = require "nyx.nn.utils",
  KVCache = require "nyx.nn.cache",
  checkpoint_sequential = segments.checkpoint_sequential,
  plan_checkpoints = segments.plan_checkpoints,
  measure_layers = segments.measure_layers,
  --- Classes that nyx.load may build, by name.
  classes = {},
}

--- Lets nyx.load build modules of a class of your own.
---@param class table made by nyx.class("Name", nn.Module)
---@return table class
function M.register(class)
  if type(class) ~= "table" or not class._is_module then
    check.fail("nn.register: the argument is %s, expected a class made by nyx.class(name, "
      .. "nyx.nn.Module)", check.describe(class))
  end
  local name = class.__name
  local own = M.classes[name]
  if own and own ~= class and M[name] == own then
    check.fail("nn.register: '%s' is a class of Nyx; choose another name", name)
  end
  M.classes[name] = class
  return class
end

for _, file in ipairs { "linear", "quantized", "container", "conv", "norm", "activation", "gated",
  "rotary", "attention", "recurrent", "loss" } do
  for name, class in pairs(require("nyx.nn." .. file)) do
    M[name] = class
    M.register(class)
  end
end

return M
