-- nyx.save and nyx.load. Names that end in .npy and .npz are NumPy's files; any other is a
-- .nyx file: a safetensors file, what its tensors belong to is JSON in its metadata. Loading
-- never runs code. Read next: tree.lua, safetensors.lua, npy.lua.
local check = require "nyx.check"
local system = require("nyx.core").system
local npy = require "nyx.io.npy"
local npz = require "nyx.io.npz"
local safetensors = require "nyx.io.safetensors"
local tree = require "nyx.io.tree"

local M = {}

-- NumPy's formats, by the end of a file's name.
local formats = { npy = npy, npz = npz }

local function format_of(path)
  return formats[(path:match("%.(%w+)$") or ""):lower()]
end

local function moved(object, device)
  if check.is_tensor(object) then return object:to(device) end
  for name, tensor in pairs(object) do object[name] = tensor:to(device) end
  return object
end

--- Saves a module, a tensor, or plain tables of tensors, modules, numbers, strings and
--- booleans (such as optimizer:state_dict()). A name that ends in .npy takes a tensor, one in
--- .npz a table of tensors by name, for NumPy. The file appears whole or not at all.
---@param path string
---@param object any
---@return boolean? ok
---@return string? message
function M.save(path, object)
  check.type("nyx.save", "path", path, "string")
  if object == nil then
    check.fail("nyx.save: 'object' is nil, expected a module, tensor or table")
  end
  local format = format_of(path)
  if format then return format.write(path, object) end
  local root, tensors = tree.encode(object)
  local text = system.json_encode({ version = 1, root = root })
  return safetensors.write(path, tensors, { nyx = text })
end

--- Loads what nyx.save wrote; of any other safetensors file, its tensors by name; of NumPy's
--- .npy its tensor, of .npz its tensors by name. Options: device, and classes,
--- {Name = class}, beside those of nn.register.
---@param path string
---@param options? {device: string, classes: table<string, table>}
---@return any object
---@return string? message
function M.load(path, options)
  check.type("nyx.load", "path", path, "string")
  options = check.options("nyx.load", options, "device classes")
  local format = format_of(path)
  if format then
    local object, message = format.read(path)
    if not object then return nil, message end
    return options.device and moved(object, options.device) or object
  end
  local tensors, metadata = safetensors.read(path, options.device)
  if not tensors then return nil, metadata end
  if not metadata.nyx then return tensors end
  local document, problem = system.json_decode(metadata.nyx)
  if type(document) ~= "table" then
    return nil, ("%s: the tree of objects is damaged: %s"):format(path, problem or "no object")
  end
  if document.version ~= 1 or document.root == nil then
    return nil, ("%s: version %s of the format is unknown; expected 1"):format(path,
      tostring(document.version))
  end
  local classes = setmetatable({}, { __index = require("nyx.nn").classes })
  for name, class in pairs(options.classes or {}) do classes[name] = class end
  local object
  object, problem = tree.decode(document.root, tensors, classes)
  if object == nil then return nil, ("%s: %s"):format(path, problem) end
  return object
end

return M
