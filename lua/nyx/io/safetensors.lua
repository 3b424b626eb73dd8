-- Safetensors files: an 8-byte little-endian length, a JSON header, the tensors' bytes. A
-- header is believed only after every length, range, name and shape in it was checked.
-- Read next: init.lua.
local system = require("nyx.core").system
local files = require "nyx.io.file"
local nyx = require "nyx"

local M = {}

local MAX_HEADER = 100e6 -- bytes; the reference implementation's limit
local MAX_EXACT = 2 ^ 53 -- the integers that a number holds exactly

local bytes_of = { float64 = 8, float32 = 4, float16 = 2, bfloat16 = 2, int64 = 8, int32 = 4,
  int8 = 1, uint8 = 1, bool = 1, complex64 = 8, complex128 = 16 }
local name_of = { float64 = "F64", float32 = "F32", float16 = "F16", bfloat16 = "BF16",
  int64 = "I64", int32 = "I32", int8 = "I8", uint8 = "U8", bool = "BOOL",
  complex64 = "C64", complex128 = "C128" }
local dtype_of = {}
for dtype, name in pairs(name_of) do dtype_of[name] = dtype end

local function pack_length(n)
  local bytes = {}
  for i = 1, 8 do
    bytes[i] = string.char(n % 256)
    n = math.floor(n / 256)
  end
  return table.concat(bytes)
end

local function unpack_length(text)
  local n = 0.0 -- a float: hostile lengths must not wrap around
  for i = 8, 1, -1 do n = n * 256 + text:byte(i) end
  return n
end

--- Writes tensors under their names, with a table of strings as metadata.
---@param path string
---@param tensors {name: string, tensor: any}[]
---@param metadata? table<string, string>
---@return boolean? ok
---@return string? message
function M.write(path, tensors, metadata)
  local header, plain, offset = {}, {}, 0
  if metadata and next(metadata) then header.__metadata__ = metadata end
  for i, entry in ipairs(tensors) do
    local tensor = entry.tensor:detach():to("cpu"):contiguous()
    local size = tensor:numel() * bytes_of[tensor.dtype]
    header[entry.name] = { dtype = name_of[tensor.dtype], shape = tensor.shape,
      data_offsets = { offset, offset + size } }
    offset = offset + size
    plain[i] = tensor
  end
  local text = next(header) and system.json_encode(header) or "{}"
  text = text .. (" "):rep(-#text % 8) -- the tensors begin at a multiple of 8
  return files.replace(path, function(file)
    local ok, message = file:write(pack_length(#text), text)
    for i = 1, #plain do
      if not ok then break end
      ok, message = system.write_tensor(file, plain[i])
    end
    return ok and true, message
  end)
end

local function is_count(value)
  return type(value) == "number" and value >= 0 and value % 1 == 0 and value <= MAX_EXACT
end

-- The bytes a shape needs; nil where they are not a count.
local function size_of(shape, item)
  local size, empty = item + 0.0, false
  for d = 1, #shape do
    if not is_count(shape[d]) then return nil end
    if shape[d] == 0 then empty = true else size = size * shape[d] end
    if size > MAX_EXACT then return nil end
  end
  return empty and 0 or size
end

-- Checks one entry of the header; gives what is to be read, or nil and what is wrong.
local function entry_of(name, info)
  if type(info) ~= "table" then return nil, "is no object" end
  for key in pairs(info) do
    if key ~= "dtype" and key ~= "shape" and key ~= "data_offsets" then
      return nil, "has an unknown member"
    end
  end
  local dtype = dtype_of[info.dtype]
  if not dtype then
    return nil, ("has dtype '%s', which Nyx does not know"):format(tostring(info.dtype))
  end
  local shape, range = info.shape, info.data_offsets
  if type(shape) ~= "table" then return nil, "has no shape" end
  if #shape > 8 then return nil, ("has %d dimensions, expected at most 8"):format(#shape) end
  for key in pairs(shape) do
    if type(key) ~= "number" then return nil, "has no shape" end
  end
  local size = size_of(shape, bytes_of[dtype])
  if not size then return nil, "has an impossible shape" end
  if type(range) ~= "table" or #range ~= 2 or not is_count(range[1]) or not is_count(range[2])
  then
    return nil, "has no data_offsets"
  end
  if range[2] - range[1] ~= size then
    return nil, ("has %.0f bytes, its shape needs %.0f"):format(range[2] - range[1], size)
  end
  return { name = name, dtype = dtype, shape = shape, first = range[1], last = range[2] }
end

-- Reads and checks the header; gives the entries in the order of their bytes.
local function read_header(file)
  local size = file:seek("end")
  if not size then return nil, "cannot be read" end
  file:seek("set", 0)
  local prefix = size >= 8 and file:read(8)
  if not prefix or #prefix < 8 then return nil, "is too short for a safetensors file" end
  local length = unpack_length(prefix)
  if length > MAX_HEADER or length > size - 8 or length < 2 then
    return nil, ("claims a header of %.0f bytes in a file of %.0f"):format(length, size)
  end
  local text = file:read(length)
  if not text or #text < length then return nil, "ends too early" end
  if text:sub(1, 1) ~= "{" then return nil, "has a header that is no JSON object" end
  local header, problem = system.json_decode(text)
  if header == nil then return nil, "has a bad header: " .. problem end
  local entries, metadata = {}, header.__metadata__
  for name, info in pairs(header) do
    if name ~= "__metadata__" then
      local entry
      entry, problem = entry_of(name, info)
      if not entry then return nil, ("has a bad header: tensor '%s' %s"):format(name, problem) end
      entries[#entries + 1] = entry
    end
  end
  table.sort(entries, function(a, b)
    if a.first ~= b.first then return a.first < b.first end
    if a.last ~= b.last then return a.last < b.last end
    return a.name < b.name
  end)
  local at = 0
  for _, entry in ipairs(entries) do
    if entry.first ~= at then
      return nil, ("has a bad header: the bytes of tensor '%s' %s"):format(entry.name,
        entry.first < at and "overlap another's" or "leave a gap")
    end
    at = entry.last
  end
  if at ~= size - 8 - length then
    return nil, ("has %.0f bytes of tensors, its header describes %.0f"):format(
      size - 8 - length, at)
  end
  if metadata ~= nil then
    if type(metadata) ~= "table" then return nil, "has metadata that is no object" end
    for _, value in pairs(metadata) do
      if type(value) ~= "string" then return nil, "has metadata that is no string" end
    end
  end
  return entries, metadata or {}
end

--- Reads all tensors of a file.
---@param path string
---@param device? string
---@return table<string, any>? tensors by name
---@return table<string, string>|string metadata or the message
function M.read(path, device)
  local file, message = files.open(path)
  if not file then return nil, message end
  local entries, metadata = read_header(file)
  if not entries then
    file:close()
    return nil, ("%s %s"):format(path, metadata)
  end
  local tensors = {}
  for _, entry in ipairs(entries) do
    local ok, tensor = pcall(nyx.empty, entry.shape, { dtype = entry.dtype })
    local why = tensor -- there is no memory for it
    if ok then ok, why = system.read_tensor(file, tensor) end
    if not ok then
      file:close()
      return nil, ("%s: tensor '%s': %s"):format(path, entry.name, why)
    end
    tensors[entry.name] = device and tensor:to(device) or tensor
  end
  file:close()
  return tensors, metadata
end

return M
