-- nyx.class: plain metatables, single inheritance. A class is its instances' metatable and
-- __index; what a class says about its behaviour (__call, __tostring, ...) holds for classes
-- derived from it too.

local check = require "nyx.check"

local function construct(class, ...)
  local object = setmetatable({}, class)
  local init = class.init
  if init then init(object, ...) end
  return object
end

local function class_name(class)
  return "class " .. class.__name
end

--- Makes a class. `Name(...)` makes an object and calls its `init(self, ...)`; a class
--- without an `init` of its own has its parent's.
---@generic T
---@param name string what the class is called in messages and files
---@param parent? T
---@return T class
local function class(name, parent)
  if type(name) ~= "string" then
    check.fail("class: the name is %s, expected a string", check.describe(name))
  end
  if parent ~= nil and (type(parent) ~= "table" or rawget(parent, "__index") == nil) then
    check.fail("class: the parent of %s is %s, expected a class", name, check.describe(parent))
  end
  local made = {}
  for key, value in pairs(parent or {}) do
    if type(key) == "string" and key:sub(1, 2) == "__" then made[key] = value end
  end
  made.__name, made.__index, made.super = name, made, parent
  return setmetatable(made, { __index = parent, __call = construct, __tostring = class_name })
end

return class
