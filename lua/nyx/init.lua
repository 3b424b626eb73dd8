-- require "nyx": tensors and ops (nyx.core, C), what is written in Lua about them
-- (nyx.tensor), and what is loaded when first used: the modules nyx.nn, nyx.optim, ... , and
-- methods of tensors that fewer scripts need (late.lua).
-- Read next: tensor.lua, help.lua, docs/tour.md.

---@class nyx
---@field version string
---@field Tensor nyx.Tensor the table of all methods of tensors
---@field nn nyx.nn
---@field optim nyx.optim
---@field data nyx.data
---@field train nyx.train
---@field func nyx.func
---@field linalg nyx.linalg
local nyx = require "nyx.core"

if package.loaded["nyx"] == nyx then return nyx end

-- Errors are reported at the caller's line, past the files that lie beside this one.
local home = debug.getinfo(1, "S").source:match("^(.*)init%.lua$")
if home then nyx.set_home(home) end

-- Functions that live in modules.
local elsewhere = { save = "io", load = "io", help = "help", Function = "custom",
  profile_backward = "profile", grad_flow = "grad_flow", checkpoint = "checkpoint",
  derivative = "derivative", gradcheck = "gradcheck", gradgradcheck = "gradcheck",
  einsum = "einsum", prefilter = "prefilter" }
-- What the REPL completes besides what is loaded.
local names = { nn = true, optim = true, data = true, train = true, show = true, amp = true,
  graph = true, func = true, fft = true, linalg = true }
for name in pairs(elsewhere) do names[name] = true end

local function module_exists(name)
  if package.loaded[name] or package.preload[name] then return true end
  return package.searchpath(name, package.path) ~= nil
end

local late

setmetatable(nyx, {
  __names = function()
    late.load_all()
    return names
  end,
  __index = function(self, name)
    if type(name) ~= "string" then return nil end
    local value = self.find(name) -- an op of an extension
    if value == nil and elsewhere[name] then
      value = require("nyx." .. elsewhere[name])[name]
    elseif value == nil and name:find("^%a[%w_]*$") and module_exists("nyx." .. name) then
      value = require("nyx." .. name)
    elseif value == nil then
      late.load_all()
      value = rawget(self, name)
    end
    if value ~= nil then rawset(self, name, value) end
    return value
  end,
})

nyx.class = require "nyx.class"
nyx.clock = nyx.system.clock -- seconds, for measuring

for _, name in ipairs { "float32", "float64", "float16", "bfloat16", "int8", "uint8", "int32",
  "int64", "bool", "complex64", "complex128" } do
  nyx[name] = name
end

package.loaded["nyx"] = nyx
require "nyx.tensor"
require "nyx.compose"
late = require "nyx.late"

return nyx
