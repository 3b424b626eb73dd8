-- NumPy's files of one array (.npy): a magic string, a version, the header's length, the
-- header as a Python dict, the elements. The header is read by a small parser of its own,
-- which knows that one form; nothing in it is ever run, objects (pickles) are refused. The
-- format: NumPy's numpy/lib/format.py, NEP 1. Read next: npz.lua, init.lua.
local check = require "nyx.check"
local system = require("nyx.core").system
local files = require "nyx.io.file"
local nyx = require "nyx"

local M = {}

local MAGIC = "\147NUMPY"
local MAX_HEADER = 65535 -- bytes; NumPy itself believes 10000
local MAX_EXACT = 2 ^ 53 -- the integers that a number holds exactly

-- What follows the byte order in 'descr'.
local descr_of = { float64 = "f8", float32 = "f4", float16 = "f2", int64 = "i8", int32 = "i4",
  int8 = "i1", uint8 = "u1", bool = "b1", complex64 = "c8", complex128 = "c16" }
local dtype_of = {}
for dtype, descr in pairs(descr_of) do dtype_of[descr] = dtype end

-- What Nyx has no dtype for, and what keeps its values.
local remedies = { i2 = "int32", u2 = "int32", u4 = "int64", u8 = "int64", f16 = "float64" }

-- ---------------------------------------------------------------- writing

--- The bytes before the elements of a tensor.
---@param where string whose error it is, "nyx.save: 'a'"
---@param tensor any
---@return string header
function M.header(where, tensor)
  local descr = descr_of[tensor.dtype]
  if not descr then
    check.fail('%s: NumPy has no %s; convert it before, x:to("float32")', where, tensor.dtype)
  end
  local order = descr:sub(2) == "1" and "|" or "<"
  local sizes = table.concat(tensor.shape, ", ") .. (tensor.ndim == 1 and "," or "")
  local text = ("{'descr': '%s%s', 'fortran_order': False, 'shape': (%s), }"):format(order, descr,
    sizes)
  text = text .. (" "):rep(-(#text + 11) % 64) .. "\n" -- the elements begin at a multiple of 64
  return MAGIC .. "\1\0" .. string.char(#text % 256, math.floor(#text / 256)) .. text
end

--- The tensor as its elements lie in the file.
---@param tensor any
---@return any
function M.plain(tensor)
  return tensor:detach():to("cpu"):contiguous()
end

--- Writes one tensor.
---@param path string
---@param tensor any
---@return boolean? ok
---@return string? message
function M.write(path, tensor)
  if not check.is_tensor(tensor) then
    check.fail("nyx.save: 'object' is %s, expected a tensor for a .npy file; a table of tensors "
      .. "is saved as .npz", check.describe(tensor))
  end
  local header, plain = M.header("nyx.save", tensor), M.plain(tensor)
  return files.replace(path, function(file)
    local ok, message = file:write(header)
    if ok then ok, message = system.write_tensor(file, plain) end
    return ok and true, message
  end)
end

-- ---------------------------------------------------------------- the header

-- A tuple of sizes; Python 2 wrote long ones as 3L.
local function shape_of(text)
  local shape, rest = {}, text
  if text:find("^%s*$") then return shape end
  local trailing = text:find(",%s*$")
  if not trailing then
    if not text:find(",") then return nil, "has a shape that is no tuple" end
    rest = text .. ","
  end
  for item in rest:gmatch("([^,]*),") do
    local digits = item:match("^%s*(%d+)L?%s*$")
    if not digits then return nil, "has a shape that is no tuple of sizes" end
    shape[#shape + 1] = tonumber(digits)
    if #digits > 17 or shape[#shape] > MAX_EXACT then return nil, "has an impossible shape" end
  end
  return shape
end

-- One value at `at`: its text and where it ends.
local function value_at(text, at)
  local first = text:sub(at, at)
  if first == "'" or first == '"' then
    return text:match("^" .. first .. "([%w<>=|]*)" .. first .. "()", at)
  elseif first == "(" then
    return text:match("^%(([%d%s,L]*)%)()", at)
  end
  return text:match("^(%a+)()", at)
end

-- {'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }: exactly these three keys, in
-- any order, with such values.
local function parse(text)
  local found = {}
  local at = text:match("^%s*{%s*()")
  if not at then return nil, "is no dict" end
  while true do
    local closed = text:match("^}%s*()", at)
    if closed then
      if closed ~= #text + 1 then return nil, "goes on after the dict" end
      break
    end
    local _, key, next_at = text:match("^(['\"])([%l_]+)%1%s*:%s*()", at)
    if not key then return nil, "is no dict of descr, fortran_order and shape" end
    if key ~= "descr" and key ~= "fortran_order" and key ~= "shape" then
      return nil, ("has the unknown key '%s'"):format(key)
    end
    if found[key] then return nil, ("has '%s' twice"):format(key) end
    if key == "descr" and text:find("^%[", next_at) then
      return nil, "describes a structured array; save its fields one by one"
    end
    local wanted = key == "descr" and "['\"]" or key == "shape" and "%(" or "%a"
    if not text:find("^" .. wanted, next_at) then
      return nil, ("has a '%s' that Nyx does not read"):format(key)
    end
    local value, after = value_at(text, next_at)
    if not value then return nil, ("has a '%s' that Nyx does not read"):format(key) end
    found[key] = value
    at = text:match("^%s*,%s*()", after)
    if not at then
      at = text:match("^%s*()}", after)
      if not at then return nil, "is no dict of descr, fortran_order and shape" end
    end
  end
  for _, key in ipairs { "descr", "fortran_order", "shape" } do
    if not found[key] then return nil, ("lacks '%s'"):format(key) end
  end
  return found
end

-- The dtype of a descr, and whether its bytes are reversed.
local function dtype_from(descr)
  local order, kind = descr:match("^([<>|=])(%a%d*)$")
  if not order then return nil, ("has dtype '%s', which Nyx does not know"):format(descr) end
  local dtype = dtype_of[kind]
  if dtype then
    -- "=" is the writer's own order, which nobody else can know.
    if kind:sub(2) ~= "1" and (order == "=" or order == "|") then
      return nil, ("has dtype '%s' without a byte order"):format(descr)
    end
    return dtype, order == ">"
  end
  if kind:sub(1, 1) == "O" then
    return nil, "holds Python objects (a pickle), which Nyx does not run"
  end
  local remedy = remedies[kind]
  if kind:sub(1, 1) == "c" then -- no one dtype keeps its values
    return nil, ("has dtype '%s', which Nyx does not know; save its real and imaginary parts")
      :format(descr)
  end
  return nil, ("has dtype '%s', which Nyx does not know%s"):format(descr, remedy
    and ("; save it as x.astype('%s')"):format(remedy) or "")
end

-- The bytes of the elements; nil where they are no count.
local function size_of(shape, item)
  local size, empty = item + 0.0, false
  for _, n in ipairs(shape) do
    if n == 0 then empty = true else size = size * n end
    if size > MAX_EXACT then return nil end
  end
  return empty and 0 or size
end

-- Reads and checks the header; gives dtype, shape, whether fortran's order, whether swapped.
local function read_header(reader)
  local start = reader:read(8)
  if not start or #start < 8 or start:sub(1, 6) ~= MAGIC then return nil, "is no .npy file" end
  local version, minor = start:byte(7, 8)
  if version < 1 or version > 3 or minor ~= 0 then
    return nil, ("has version %d.%d of the format, expected 1.0, 2.0 or 3.0"):format(version, minor)
  end
  local width = version == 1 and 2 or 4
  local prefix = reader:read(width)
  if not prefix or #prefix < width then return nil, "ends too early" end
  local length = 0
  for i = width, 1, -1 do length = length * 256 + prefix:byte(i) end
  if length > MAX_HEADER or length > reader.size - 8 - width then
    return nil, ("claims a header of %.0f bytes in %.0f"):format(length, reader.size)
  end
  local text = reader:read(length)
  if not text or #text < length then return nil, "ends too early" end
  local found, problem = parse(text)
  if not found then return nil, "has a header that " .. problem end
  local head = { fortran = found.fortran_order == "True" }
  if not head.fortran and found.fortran_order ~= "False" then
    return nil, "has a header whose 'fortran_order' is neither True nor False"
  end
  head.dtype, head.swapped = dtype_from(found.descr)
  if not head.dtype then return nil, head.swapped end
  head.shape, problem = shape_of(found.shape)
  if not head.shape then return nil, problem end
  if #head.shape > 8 then
    return nil, ("has %d dimensions, expected at most 8"):format(#head.shape)
  end
  local size = size_of(head.shape, tonumber(descr_of[head.dtype]:sub(2)))
  local left = reader.size - 8 - width - length
  if not size then return nil, "has an impossible shape" end
  if size ~= left then
    return nil, ("has %.0f bytes of elements, its shape needs %.0f"):format(left, size)
  end
  return head
end

--- Reads the tensor behind a reader: read(self, n) gives text, fill(self, tensor) the next
--- bytes, size is how many there are in all.
---@param reader table
---@return any tensor nil where it is no such file
---@return string? message what is wrong, to follow the file's name
function M.from(reader)
  local head, problem = read_header(reader)
  if not head then return nil, problem end
  local shape = head.shape
  if head.fortran then -- read as its transpose, whose last dimension runs first
    shape = {}
    for d = 1, #head.shape do shape[d] = head.shape[#head.shape + 1 - d] end
  end
  local ok, tensor = pcall(nyx.empty, shape, { dtype = head.dtype })
  if not ok then return nil, "does not fit: " .. tensor end
  ok, problem = reader:fill(tensor)
  if not ok then return nil, "cannot be read: " .. problem end
  if head.swapped then system.swap_bytes(tensor) end
  if head.fortran and #shape > 1 then
    local order = {}
    for d = 1, #shape do order[d] = #shape + 1 - d end
    tensor = tensor:permute(order):contiguous()
  end
  return tensor
end

--- Reads one tensor; both byte orders and both orders of dimensions become Nyx' own.
---@param path string
---@return any tensor
---@return string? message
function M.read(path)
  local file, message = files.open(path)
  if not file then return nil, message end
  local size = file:seek("end")
  if not size then
    file:close()
    return nil, ("%s: it cannot be read"):format(path)
  end
  file:seek("set", 0)
  local tensor, problem = M.from {
    size = size,
    read = function(_, n) return n == 0 and "" or file:read(n) end,
    fill = function(_, tensor) return system.read_tensor(file, tensor) end,
  }
  file:close()
  if not tensor then return nil, ("%s %s"):format(path, problem) end
  return tensor
end

return M
