-- Argument checks for the Lua layers. Messages say what, expected, got, remedy, and are
-- raised at the line of the first caller outside lua/nyx, however deep the check sits.
local nyx = require "nyx.core"

local M = {}

--- Raises `message` (a string.format pattern and its arguments) at the caller's line.
---@param message string
---@param ... any
function M.fail(message, ...)
  if select("#", ...) > 0 then message = message:format(...) end
  nyx.fail(message)
end

--- A short description of a value for messages: `number 3`, `string 'abc'`, `table`.
---@param value any
---@return string
function M.describe(value)
  local kind = type(value)
  if kind == "string" then
    return ("string '%s'"):format(#value > 40 and value:sub(1, 37) .. "..." or value)
  end
  if kind == "number" or kind == "boolean" then return ("%s %s"):format(kind, tostring(value)) end
  if kind == "userdata" and M.is_tensor(value) then
    if nyx.system.is_released(value) then return "a released tensor" end
    return ("a tensor of shape (%s)"):format(table.concat(value.shape, "x"))
  end
  return kind
end

--- Whether a value is a Nyx tensor.
---@param value any
---@return boolean
function M.is_tensor(value)
  return nyx.is_tensor(value)
end

--- Checks the Lua type of an argument.
---@param where string the function, "nn.Linear"
---@param name string the argument
---@param value any
---@param expected string a name that type() gives
---@return any value
function M.type(where, name, value, expected)
  if type(value) ~= expected then
    M.fail("%s: '%s' is %s, expected a %s", where, name, M.describe(value), expected)
  end
  return value
end

--- Whether a value can be called: a function, or a table such as a module.
---@param value any
---@return boolean
function M.is_callable(value)
  local meta = type(value) ~= "function" and getmetatable(value)
  return type(value) == "function" or type(meta) == "table" and meta.__call ~= nil
end

--- Checks for a function or what can be called like one.
---@param where string
---@param name string
---@param value any
---@return any value
function M.callable(where, name, value)
  if not M.is_callable(value) then
    M.fail("%s: '%s' is %s, expected a function of tensors", where, name, M.describe(value))
  end
  return value
end

--- Checks for an integer of at least `low`.
---@param where string
---@param name string
---@param value any
---@param low? integer default 1
---@return integer value
function M.integer(where, name, value, low)
  low = low or 1
  if type(value) ~= "number" or value % 1 ~= 0 or value < low or value > 2 ^ 53 then
    M.fail("%s: '%s' is %s, expected an integer of at least %d", where, name,
      M.describe(value), low)
  end
  return value
end

--- Checks for a finite number in low..high.
---@param where string
---@param name string
---@param value any
---@param low? number
---@param high? number
---@return number value
function M.number(where, name, value, low, high)
  low, high = low or -math.huge, high or math.huge
  if type(value) ~= "number" or value ~= value or value < low or value > high then
    local range = low == -math.huge and high == math.huge and "a number"
      or high == math.huge and ("a number of at least %g"):format(low)
      or ("a number in %g..%g"):format(low, high)
    M.fail("%s: '%s' is %s, expected %s", where, name, M.describe(value), range)
  end
  return value
end

--- Checks for a dimension of x.
---@param where string
---@param x nyx.Tensor
---@param dim any
---@return integer dim from 1
function M.dim(where, x, dim)
  local n = M.tensor(where, "x", x).ndim
  if type(dim) ~= "number" or dim % 1 ~= 0 then
    M.fail("%s: 'dim' is %s, expected a dimension", where, M.describe(dim))
  end
  if dim == 0 then
    M.fail("%s: 'dim' is 0; dimensions count from 1, from the end with -1", where)
  end
  if dim > n or dim < -n then
    M.fail("%s: dimension %.0f is out of range for a tensor of %d dimensions", where, dim, n)
  end
  return dim > 0 and dim or dim + n + 1
end

--- Checks a table of options: an unknown name is an error that lists the known ones.
---@param where string
---@param options table? nil gives {}
---@param known string names separated by blanks
---@return table options
function M.options(where, options, known)
  if options == nil then return {} end
  if type(options) ~= "table" then
    M.fail("%s: the options are %s, expected a table such as {%s = ...}", where,
      M.describe(options), known:match("%S+") or "")
  end
  for key in pairs(options) do
    if type(key) ~= "string" or not (" " .. known .. " "):find(" " .. key .. " ", 1, true) then
      M.fail("%s: unknown option '%s'; known: %s", where, tostring(key), known)
    end
  end
  return options
end

--- Checks that a value is one of several names.
---@param where string
---@param name string
---@param value any
---@param choices string names separated by blanks
---@return string value
function M.choice(where, name, value, choices)
  if type(value) ~= "string" or not (" " .. choices .. " "):find(" " .. value .. " ", 1, true) then
    M.fail("%s: '%s' is %s, expected one of: %s", where, name, M.describe(value), choices)
  end
  return value
end

--- Checks for a tensor that was not released.
---@param where string
---@param name string
---@param value any
---@return any value
function M.tensor(where, name, value)
  if not M.is_tensor(value) then
    M.fail("%s: '%s' is %s, expected a tensor", where, name, M.describe(value))
  end
  if nyx.system.is_released(value) then
    M.fail("%s: '%s' is a released tensor; its memory was given back by release, <close> or "
      .. "the end of nyx.scope", where, name)
  end
  return value
end

return M
