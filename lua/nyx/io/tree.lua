-- Lua values as a tree of JSON with tensors beside it, and back. Nothing in a file is ever
-- run: objects are made of registered classes and plain fields.
--
--   number, string, boolean, list, table with string keys   as in JSON
--   {"$": "tensor", "name": ..., "requires_grad": true}     a tensor of the file
--   {"$": "module", "class": ..., "fields": [[key, value, kind], ...]}
--   {"$": "table", "pairs": [[key, value], ...]}            any other table
--   {"$": "same", "as": n}                                  the nth table or module again
--   {"$": "number" | "integer" | "bytes", "value": ...}     what JSON cannot say
local check = require "nyx.check"
local nyx = require "nyx"

local M = {}

local Writer = {}
Writer.__index = Writer

-- Text that JSON can hold: UTF-8 without zero bytes.
local function is_text(s)
  if not s:find("[%z\128-\255]") then return true end
  if s:find("%z") then return false end
  local i, n = 1, #s
  while i <= n do
    local c = s:byte(i)
    local extra = c < 0x80 and 0 or c < 0xC2 and -1 or c < 0xE0 and 1 or c < 0xF0 and 2
      or c < 0xF5 and 3 or -1
    if extra < 0 then return false end
    local code = extra == 0 and c or c % 2 ^ (6 - extra)
    for k = i + 1, i + extra do
      local b = s:byte(k)
      if not b or b < 0x80 or b > 0xBF then return false end
      code = code * 64 + b % 64
    end
    if extra == 2 and (code < 0x800 or code >= 0xD800 and code <= 0xDFFF) then return false end
    if extra == 3 and (code < 0x10000 or code > 0x10FFFF) then return false end
    i = i + extra + 1
  end
  return true
end

local function number(value)
  if value ~= value then return { ["$"] = "number", value = "nan" } end
  if value == math.huge or value == -math.huge then
    return { ["$"] = "number", value = value > 0 and "inf" or "-inf" }
  end
  if math.type and math.type(value) == "integer" and (value > 2 ^ 53 or value < -2 ^ 53) then
    return { ["$"] = "integer", value = ("%d"):format(value) }
  end
  return value
end

local function text(value)
  if is_text(value) then return value end
  return { ["$"] = "bytes", value = (value:gsub(".", function(c)
    return ("%02x"):format(c:byte())
  end)) }
end

-- Whether keys are exactly 1..n, or all text that is not "$".
local function shape_of(value)
  local n, strings = 0, true
  for key in next, value do
    n = n + 1
    if type(key) ~= "string" or key:sub(1, 1) == "$" or not is_text(key) then strings = false end
  end
  for i = 1, n do
    if rawget(value, i) == nil then return strings and n > 0 and "object" or "pairs" end
  end
  return "list"
end

-- Strings before numbers, each in order.
local function sorted_keys(value)
  local keys = {}
  for key in next, value do keys[#keys + 1] = key end
  table.sort(keys, function(a, b)
    if type(a) ~= type(b) then return type(a) > type(b) end
    if type(a) == "boolean" then return b and not a end
    return a < b
  end)
  return keys
end

local function fail(path, why)
  check.fail("nyx.save: %s%s", path == "" and "the object" or path, why)
end

function Writer:tensor(value, path)
  check.tensor("nyx.save", path == "" and "object" or path, value)
  local name = self.names[value]
  if not name then
    name = path == "" and "tensor" or path
    local base, n = name, 1
    while self.taken[name] or name == "__metadata__" do
      n = n + 1
      name = ("%s#%d"):format(base, n)
    end
    self.taken[name], self.names[value] = true, name
    self.tensors[#self.tensors + 1] = { name = name, tensor = value }
  end
  return { ["$"] = "tensor", name = name, requires_grad = value.requires_grad or nil }
end

local function join(path, key)
  key = tostring(key)
  if not is_text(key) then key = "bytes" end
  return path == "" and key or path .. "." .. key
end

-- What a module notes about itself: not part of its state.
local books = { _order = true, _kinds = true, _hooks = true }

function Writer:module(value, path)
  local fields = {}
  local order, kinds = value._order or {}, value._kinds or {}
  local role = require("nyx.nn.module").role
  local function field(key)
    local content = rawget(value, key)
    if content ~= nil and not books[key] then
      fields[#fields + 1] = { self:value(key, path), self:value(content, join(path, key)),
        role(value, key) }
    end
  end
  for _, key in ipairs(order) do field(key) end
  for _, key in ipairs(sorted_keys(value)) do
    if not kinds[key] then field(key) end
  end
  return { ["$"] = "module", class = value:class_name(), fields = fields }
end

function Writer:table(value, path)
  if self.depth > 100 then fail(path, " is nested more than 100 deep") end
  if self.seen[value] then return { ["$"] = "same", as = self.seen[value] } end
  self.count = self.count + 1
  self.seen[value] = self.count
  if require("nyx.nn.module").is_module(value) then return self:module(value, path) end
  if getmetatable(value) ~= nil then
    fail(path, " is an object with a metatable; save its state_dict() or plain fields")
  end
  local shape, result = shape_of(value), {}
  if shape == "list" then
    for i = 1, #value do result[i] = self:value(value[i], join(path, i)) end
    return result
  end
  for _, key in ipairs(sorted_keys(value)) do
    local content = rawget(value, key)
    if shape == "object" then
      result[key] = self:value(content, join(path, key))
    else
      result[#result + 1] = { self:value(key, path), self:value(content, join(path, key)) }
    end
  end
  return shape == "object" and result or { ["$"] = "table", pairs = result }
end

function Writer:value(value, path)
  local kind = type(value)
  if kind == "boolean" then return value end
  if kind == "number" then return number(value) end
  if kind == "string" then return text(value) end
  if kind == "userdata" and nyx.is_tensor(value) then return self:tensor(value, path) end
  if kind ~= "table" then fail(path, (" is a %s, which cannot be saved"):format(kind)) end
  self.depth = self.depth + 1
  local result = self:table(value, path)
  self.depth = self.depth - 1
  return result
end

--- The tree of a value, and its tensors in order.
---@param value any
---@return any tree
---@return {name: string, tensor: any}[] tensors
function M.encode(value)
  local writer = setmetatable({ names = {}, taken = {}, tensors = {}, seen = {}, count = 0,
    depth = 0 }, Writer)
  local tree = writer:value(value, "")
  return tree, writer.tensors
end

local Reader = {}
Reader.__index = Reader

-- Leaves the decoding of a bad file; M.decode catches it.
local function reject(message, ...)
  error({ message = message:format(...) }, 0)
end

local special = {
  number = { inf = math.huge, ["-inf"] = -math.huge, nan = 0 / 0 },
}

function Reader:keep(object)
  self.objects[#self.objects + 1] = object
  return object
end

local function is_key(key)
  return type(key) == "string" or type(key) == "boolean" or type(key) == "number" and key == key
end

function Reader:module(node)
  local class = self.classes[node.class]
  if not class then
    reject("class '%s' is not registered; call nyx.nn.register(%s) before loading",
      tostring(node.class), tostring(node.class))
  end
  if type(node.fields) ~= "table" then reject("a module has no fields") end
  local Module = require("nyx.nn.module")
  local object = self:keep(setmetatable({}, class))
  for i = 1, #node.fields do
    local entry = node.fields[i]
    if type(entry) ~= "table" then reject("a field of %s is damaged", node.class) end
    local key, value, kind = self:value(entry[1]), self:value(entry[2]), entry[3]
    if type(key) ~= "string" and type(key) ~= "number" or key ~= key or value == nil then
      reject("a field of %s is damaged", node.class)
    end
    -- A field must not take the place of a method or of the module's own books.
    if type(key) == "string" and (key:sub(1, 2) == "__" or books[key]
      or type(class[key]) == "function") or rawget(object, key) ~= nil then
      reject("a field of %s is named '%s'", node.class, tostring(key))
    end
    local fits = kind == nil or kind == "module" and Module.is_module(value)
      or (kind == "parameter" or kind == "buffer") and nyx.is_tensor(value)
    if not fits then
      reject("field '%s' of %s is no %s", tostring(key), node.class, tostring(kind))
    end
    Module.restore(object, key, value, kind)
  end
  return object
end

function Reader:tensor(node)
  local tensor = self.tensors[node.name]
  if tensor == nil then reject("tensor '%s' is missing", tostring(node.name)) end
  if node.requires_grad == true and not tensor.requires_grad then
    if not tensor:is_floating_point() then
      reject("tensor '%s' is %s and cannot require a gradient", node.name, tensor.dtype)
    end
    tensor:requires_grad_(true)
  end
  return tensor
end

function Reader:pairs(node)
  if type(node.pairs) ~= "table" then reject("a table has no pairs") end
  local result = self:keep({})
  for i = 1, #node.pairs do
    local entry = node.pairs[i]
    if type(entry) ~= "table" then reject("a table is damaged") end
    local key, value = self:value(entry[1]), self:value(entry[2])
    if not is_key(key) or value == nil or result[key] ~= nil then reject("a table is damaged") end
    result[key] = value
  end
  return result
end

function Reader:special(node)
  local kind = node["$"]
  if kind == "module" then return self:module(node) end
  if kind == "tensor" then return self:tensor(node) end
  if kind == "table" then return self:pairs(node) end
  local value = node.value
  if kind == "same" then
    local object = self.objects[node.as]
    if object == nil then reject("a reference leads nowhere") end
    return object
  elseif kind == "number" and special.number[value] then
    return special.number[value]
  elseif kind == "integer" and type(value) == "string" and value:find("^%-?%d+$") then
    return tonumber(value)
  elseif kind == "bytes" and type(value) == "string" and #value % 2 == 0
    and not value:find("[^%x]") then
    return (value:gsub("%x%x", function(hex) return string.char(tonumber(hex, 16)) end))
  end
  reject("a value of kind '%s' is unknown", tostring(kind))
end

function Reader:value(node)
  if type(node) ~= "table" then return node end
  if node["$"] ~= nil then return self:special(node) end
  local result = self:keep({})
  if node[1] ~= nil then
    for i = 1, #node do result[i] = self:value(node[i]) end
  else
    for _, key in ipairs(sorted_keys(node)) do result[key] = self:value(node[key]) end
  end
  return result
end

--- The value of a tree; nil and a message when the tree is damaged.
---@param tree any
---@param tensors table<string, any>
---@param classes table<string, table>
---@return any value
---@return string? message
function M.decode(tree, tensors, classes)
  local reader = setmetatable({ tensors = tensors, classes = classes, objects = {} }, Reader)
  local ok, result = pcall(reader.value, reader, tree)
  if ok then return result end
  if type(result) == "table" and result.message then return nil, result.message end
  error(result, 0)
end

return M
