-- NumPy's .npy and .npz files: what nyx.save writes comes back, other writers' forms are read,
-- damaged and hostile files give nil and a message. spec/peers/files.py asks NumPy itself.
local nyx = require "nyx"

local folder = os.tmpname()
os.remove(folder)
assert(os.execute("mkdir " .. folder))
teardown(function() os.execute("rm -r " .. folder) end)

local path, zipped = folder .. "/x.npy", folder .. "/x.npz"
local has_zip = nyx.save(zipped, { a = nyx.ones(1) })

local function message_of(...)
  local ok, text = pcall(...)
  assert.is_false(ok)
  return text
end

local function write(to, bytes)
  local file = assert(io.open(to, "wb"))
  file:write(bytes)
  file:close()
  return to
end

local function bytes_of(from)
  local file = assert(io.open(from, "rb"))
  local bytes = file:read("*a")
  file:close()
  return bytes
end

local function little(n, width)
  local bytes = {}
  for i = 1, width do
    bytes[i] = string.char(n % 256)
    n = math.floor(n / 256)
  end
  return table.concat(bytes)
end

-- The bytes of an .npy file.
local function npy(header, elements, version, length)
  version = version or 1
  return "\147NUMPY" .. string.char(version) .. "\0"
    .. little(length or #header, version == 1 and 2 or 4) .. header .. (elements or "")
end

local function head(descr, shape, fortran)
  return ("{'descr': '%s', 'fortran_order': %s, 'shape': %s, }"):format(descr,
    fortran and "True" or "False", shape)
end

local function loaded(...) return assert(nyx.load(write(path, npy(...)))) end

local function refused(pattern, bytes, to)
  local object, message = nyx.load(write(to or path, bytes))
  assert.is_nil(object)
  assert.matches(pattern, message)
  assert.is_truthy(message:find(to or path, 1, true))
end

describe(".npy files", function()
  it("of every dtype and shape come back exactly", function()
    for _, dtype in ipairs { "float64", "float32", "float16", "int64", "int32", "int8", "uint8",
      "bool" } do
      for _, shape in ipairs { {}, { 3 }, { 2, 3 }, { 0, 4 }, { 1, 2, 1, 3 } } do
        local t = nyx.randn(shape, { dtype = "float64" }):mul(10):abs():to(dtype)
        assert(nyx.save(path, t))
        local back = assert(nyx.load(path))
        assert.are.equal(dtype, back.dtype)
        assert.are.same(t.shape, back.shape)
        assert.is_true(back:equal(t))
      end
    end
    local t = nyx.arange(1, 7):reshape({ 2, 3 })
    assert(nyx.save(path, t:t()))
    assert.are.same({ { 1, 4 }, { 2, 5 }, { 3, 6 } }, nyx.load(path, { device = "cpu" }):totable())
  end)

  it("are the bytes NumPy writes", function()
    assert(nyx.save(path, nyx.tensor({ 1, 2 })))
    local header = "{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }"
    assert.are.equal("\147NUMPY\1\0\118\0" .. header .. (" "):rep(117 - #header)
      .. "\n\0\0\128\63\0\0\0\64", bytes_of(path))
  end)

  it("of others are read: versions, byte orders, orders of dimensions", function()
    for version = 1, 3 do
      assert.are.same({ 7, 9 }, loaded(head("|u1", "(2,)"), "\7\9", version):totable())
    end
    assert.are.same({ 1, 258 }, loaded(head(">i4", "(2,)"), "\0\0\0\1\0\0\1\2"):totable())
    assert.are.equal(1, loaded(head(">f8", "()"), "\63\240\0\0\0\0\0\0"):item())
    assert.are.same({ { 1, 3, 5 }, { 2, 4, 6 } },
      loaded(head("|i1", "(2, 3)", true), "\1\2\3\4\5\6"):totable())
    assert.is_true(loaded(head("|i1", "(2, 3)", true), "\1\2\3\4\5\6"):is_contiguous())
    assert.are.same({ 2, 3 }, loaded(
      '{"shape":(2L,3L),"fortran_order":False,"descr":"<u1"}  \n', "123456").shape)
  end)

  it("need a tensor of a dtype NumPy has", function()
    assert.matches("npy_spec.lua:%d+: nyx.save: 'object' is table, expected a tensor",
      message_of(function() nyx.save(path, { nyx.ones(1) }) end))
    assert.matches('NumPy has no bfloat16; convert it before, x:to%("float32"%)',
      message_of(nyx.save, path, nyx.ones({ 1 }, { dtype = "bfloat16" })))
  end)

  it("of dtypes Nyx has not are refused with a remedy", function()
    refused("dtype '<i2', which Nyx does not know; save it as x.astype%('int32'%)",
      npy(head("<i2", "(1,)"), "\1\0"))
    refused("astype%('int64'%)", npy(head("<u4", "(1,)"), "\1\0\0\0"))
    refused("real and imaginary", npy(head("<c32", "(1,)"), ("\0"):rep(32)))
    refused("dtype '<U3', which", npy(head("<U3", "(1,)"), ("\0"):rep(12)))
    refused("Python objects %(a pickle%)", npy(head("|O", "(1,)"), "\128\4."))
    refused("structured array", npy("{'descr': [('a', '<f4')], 'fortran_order': False, "
      .. "'shape': (1,), }", ("\0"):rep(4)))
    refused("without a byte order", npy(head("|f4", "(1,)"), ("\0"):rep(4)))
  end)

  it("whose header is no such dict are refused", function()
    local rest = "'fortran_order': False, 'shape': (1,)}"
    for _, header in ipairs { "", "[]", "{", "{}", "{'descr': '<f4'}", "{'x': 1, " .. rest,
      "{'descr': '|u1', 'descr': '|u1', " .. rest, "{'descr': __import__('os'), " .. rest,
      "{'descr': '|u' '1', " .. rest, "{'descr': '|u1' " .. rest,
      "{'descr': '|u1', " .. rest .. "; x",
      "{'descr': '|u1\\x00', " .. rest, "{'descr': '|u1', 'fortran_order': 0, 'shape': (1,)}",
      "{'descr': '|u1', 'fortran_order': None, 'shape': (1,)}",
      head("|u1", "(1)"), head("|u1", "[1]"), head("|u1", "(-1,)"), head("|u1", "(1,,)"),
      head("|u1", "(1.0,)"), head("|u1", "(,)"), head("|u1", "((1,),)"),
      head("|u1", "(" .. ("9"):rep(400) .. ",)"),
      head("|u1", "(0, 9007199254740993)"), head("|u1", "(4294967296, 4294967296, 2)"),
      head("|u1", "(1, 1, 1, 1, 1, 1, 1, 1, 1)"), ("{"):rep(5000) } do
      refused("x.npy", npy(header, "\1"))
    end
  end)

  it("cut, too long, of other versions or impossible lengths are refused", function()
    local whole = npy(head("<f4", "(2,)"), ("\0"):rep(8))
    for n = 0, #whole - 1 do refused("x.npy", whole:sub(1, n)) end
    refused("9 bytes of elements, its shape needs 8", whole .. "x")
    refused("is no .npy file", "\147NUMPX" .. whole:sub(7))
    refused("version 4.0", npy(head("<f4", "(2,)"), ("\0"):rep(8), 4))
    refused("claims a header of 4294967295 bytes", npy("{}", "", 2, 2 ^ 32 - 1))
    refused("neither 0 nor 1", npy(head("|b1", "(1,)"), "\2"))
  end)

  it("with any byte changed never do harm", function()
    assert(nyx.save(path, nyx.ones({ 2, 3 })))
    local bytes = bytes_of(path)
    for i = 1, #bytes do
      for _, add in ipairs { 1, 16, 128 } do
        write(path, bytes:sub(1, i - 1) .. string.char((bytes:byte(i) + add) % 256)
          .. bytes:sub(i + 1))
        local ok, object, message = pcall(nyx.load, path)
        assert.is_true(ok, ("byte %d: %s"):format(i, tostring(object)))
        assert.is_true(object ~= nil or type(message) == "string")
      end
    end
  end)
end)

describe(".npz files", function()
  if not has_zip then
    it("say what is missing", function()
      assert.matches("libzip", select(2, nyx.load(write(zipped, "PK"))))
    end)
    return
  end

  it("come back by name", function()
    local tensors = { a = nyx.randn(2, 3), ["b/c ä"] = nyx.arange(5):to("int64"),
      empty = nyx.ones(0, 4), scalar = nyx.tensor(3) }
    assert(nyx.save(zipped, tensors))
    local back = assert(nyx.load(zipped))
    local count = 0
    for name, tensor in pairs(back) do
      count = count + 1
      assert.is_true(tensor:equal(tensors[name]), name)
      assert.are.equal(tensors[name].dtype, tensor.dtype)
    end
    assert.are.equal(4, count)
    local first = bytes_of(zipped)
    assert(nyx.save(zipped, tensors))
    assert.are.equal(first, bytes_of(zipped))
    local listing = assert(io.popen("ls -A " .. folder))
    assert.is_nil(listing:read("*a"):find("part"))
    listing:close()
  end)

  it("need a table of tensors by name", function()
    assert.matches("npy_spec.lua:%d+: nyx.save: 'object' is a tensor", message_of(function()
      nyx.save(zipped, nyx.ones(1))
    end))
    assert.matches("'a' is number 1", message_of(nyx.save, zipped, { a = 1 }))
    assert.matches("a key is number 1", message_of(nyx.save, zipped, { nyx.ones(1) }))
    assert.matches("a key is string", message_of(nyx.save, zipped, { ["a\0b"] = nyx.ones(1) }))
    assert.matches("'object' is empty", message_of(nyx.save, zipped, {}))
    assert.matches("'h': NumPy has no bfloat16", message_of(nyx.save, zipped,
      { h = nyx.ones({ 1 }, { dtype = "bfloat16" }) }))
  end)

  -- An archive of stored entries, {name, bytes}; sizes may lie. The sums are 0: what lies is
  -- to be seen before they are compared.
  local function zip(entries)
    local parts, central, at = {}, {}, 0
    for _, e in ipairs(entries) do
      local about = little(20, 2) .. little(0, 2) .. little(e.method or 0, 2) .. little(0, 2)
        .. little(33, 2) .. little(0, 4) .. little(e.packed or #e[2], 4)
        .. little(e.size or #e[2], 4) .. little(#e[1], 2) .. little(0, 2)
      local first = e.at or at
      if not e.at then
        parts[#parts + 1] = "PK\3\4" .. about .. e[1] .. e[2]
        at = at + #parts[#parts]
      end
      central[#central + 1] = "PK\1\2" .. little(20, 2) .. about .. little(0, 10)
        .. little(first, 4) .. e[1]
    end
    local directory = table.concat(central)
    return table.concat(parts) .. directory .. "PK\5\6" .. little(0, 4) .. little(#entries, 2)
      .. little(#entries, 2) .. little(#directory, 4) .. little(at, 4) .. little(0, 2)
  end

  it("that are hostile are refused", function()
    local one = npy(head("|u1", "(1,)"), "\1")
    refused("'a' that cannot be read: .*CRC", zip { { "a.npy", one } }, zipped)
    refused("'../../a' that cannot be read: .*CRC", zip { { "../../a.npy", one } }, zipped)
    refused("'a' that is no .npy file", zip { { "a.npy", "PK\3\4 nested" } }, zipped)
    refused("'x.txt' that is no .npy file", zip { { "x.txt", one } }, zipped)
    -- By libzip itself, where it looks at names.
    refused("x.npz", zip { { "a.npy", one }, { "a.npy", one } }, zipped)
    refused("claims that 'a' unpacks from %d+ to 2000000000 bytes",
      zip { { "a.npy", one, size = 2e9, method = 8 } }, zipped)
    refused("x.npz", zip { { "a.npy", one }, { "b.npy", one, at = 0 } }, zipped)
    refused("x.npz", zip { { "a.npy", one, packed = 1e9, size = 1e9 } }, zipped)
    refused("Python objects", zip { { "a.npy", npy(head("|O", "(1,)"), "\128\4.") } }, zipped)
    refused("x.npz", "", zipped)
    refused("x.npz", "no archive at all", zipped)
  end)

  it("larger than the memory limit are refused", function()
    assert(nyx.save(zipped, { a = nyx.zeros(1000000) }))
    collectgarbage()
    collectgarbage()
    local limit = nyx.memory_limit(nyx.memory().live + 1000000)
    local ok, object, message = pcall(nyx.load, zipped)
    nyx.memory_limit(limit)
    assert.is_true(ok)
    assert.is_nil(object)
    assert.matches("'a' that does not fit: .*memory limit", message)
  end)

  it("cut anywhere or with any byte changed never do harm", function()
    assert(nyx.save(zipped, { a = nyx.ones(3), b = nyx.ones(2, 2):to("bool") }))
    local bytes = bytes_of(zipped)
    for n = 0, #bytes - 1, 3 do
      assert.is_nil((nyx.load(write(zipped, bytes:sub(1, n)))))
    end
    for i = 1, #bytes, 2 do
      write(zipped, bytes:sub(1, i - 1) .. string.char((bytes:byte(i) + 129) % 256)
        .. bytes:sub(i + 1))
      local ok, object, message = pcall(nyx.load, zipped)
      assert.is_true(ok, ("byte %d: %s"):format(i, tostring(object)))
      assert.is_true(object ~= nil or type(message) == "string")
    end
  end)
end)
