-- nyx.data: datasets, splits, loaders, CSV and IDX files, also damaged ones.
local nyx = require "nyx"
local data = nyx.data

local function message_of(...)
  local ok, text = pcall(...)
  assert.is_false(ok)
  return text
end

-- A file with the given bytes, for the time of a test.
local files = {}
local function file_of(bytes)
  local path = os.tmpname()
  files[#files + 1] = path
  local file = assert(io.open(path, "wb"))
  file:write(bytes)
  file:close()
  return path
end

after_each(function()
  for i, path in ipairs(files) do
    os.remove(path)
    files[i] = nil
  end
end)

local function labels(...) return nyx.tensor({ ... }, { dtype = "int64" }) end

describe("datasets", function()
  it("TensorDataset gives rows that belong together", function()
    local set = data.TensorDataset(nyx.tensor({ { 1, 2 }, { 3, 4 }, { 5, 6 } }), labels(7, 8, 9))
    assert.are.equal(3, set:size())
    local x, y = set:get(labels(3, 1))
    assert.are.same({ { 5, 6 }, { 1, 2 } }, x:totable())
    assert.are.same({ 9, 7 }, y:totable())
    x, y = set:range(2, 2)
    assert.are.same({ { 3, 4 }, { 5, 6 } }, x:totable())
    assert.are.same({ 8, 9 }, y:totable())
    x = set:get()
    assert.are.same({ 3, 2 }, x.shape)
  end)

  it("TensorDataset refuses tensors that do not fit", function()
    assert.matches("data_spec.lua:%d+: data.TensorDataset: argument 2 has shape %(2%), "
      .. "expected 3 rows", message_of(function()
      data.TensorDataset(nyx.zeros({ 3 }), nyx.zeros({ 2 }))
    end))
    assert.matches("no tensors", message_of(data.TensorDataset))
    assert.matches("'argument 1' is table, expected a tensor", message_of(data.TensorDataset, {}))
  end)

  it("Subset chooses rows, also of a subset", function()
    local set = data.TensorDataset(nyx.arange(1, 11))
    local some = data.Subset(set, { 2, 4, 6, 8 })
    assert.are.equal(4, some:size())
    assert.are.same({ 2, 4, 6, 8 }, some:get():totable())
    assert.are.same({ 8, 2 }, some:get(labels(4, 1)):totable())
    assert.are.same({ 4, 8 }, data.Subset(some, { 2, 4 }):get():totable())
  end)

  it("split divides everything once, and the same way for the same seed", function()
    local set = data.TensorDataset(nyx.arange(1, 12))
    local function parts()
      nyx.manual_seed(42)
      local a, b = data.split(set, { 0.8, 0.2 })
      return a:get():totable(), b:get():totable()
    end
    local a, b = parts()
    assert.are.equal(9, #a)
    assert.are.equal(2, #b)
    local seen = {}
    for _, list in ipairs { a, b } do
      for _, v in ipairs(list) do
        assert.is_nil(seen[v])
        seen[v] = true
      end
    end
    local again_a, again_b = parts()
    assert.are.same(a, again_a)
    assert.are.same(b, again_b)
    nyx.manual_seed(43)
    assert.are_not.same(a, data.split(set, { 9, 2 }):get():totable())
    local first, second = data.split(set, { 4, 7 }, { shuffle = false })
    assert.are.same({ 1, 2, 3, 4 }, first:get():totable())
    assert.are.equal(7, second:size())
    assert.matches("add up to 10, expected 11 rows", message_of(data.split, set, { 4, 6 }))
  end)
end)

describe("DataLoader", function()
  local set = data.TensorDataset(nyx.arange(1, 8), nyx.arange(11, 18))

  local function epoch(loader)
    local batches = {}
    for x, y in loader do
      batches[#batches + 1] = x:totable()
      assert.is_true((y - x):eq(10):all():item())
    end
    return batches
  end

  it("goes through the dataset in order, in batches", function()
    local loader = data.DataLoader(set, { batch_size = 3 })
    assert.are.equal(3, loader:count())
    local expected = { { 1, 2, 3 }, { 4, 5, 6 }, { 7 } }
    assert.are.same(expected, epoch(loader))
    assert.are.same(expected, epoch(loader))
    local short = data.DataLoader(set, { batch_size = 3, drop_last = true })
    assert.are.equal(2, short:count())
    assert.are.same({ { 1, 2, 3 }, { 4, 5, 6 } }, epoch(short))
  end)

  it("starts anew after a loop that was left", function()
    local loader = data.DataLoader(set, { batch_size = 3 })
    for _ in loader do break end -- luacheck: ignore 512
    assert.are.equal(3, #epoch(loader))
  end)

  it("shuffles by the seed, differently each epoch", function()
    local loader = data.DataLoader(set, { batch_size = 7, shuffle = true })
    local function order()
      nyx.manual_seed(9)
      return { epoch(loader)[1], epoch(loader)[1], epoch(loader)[1] }
    end
    local first = order()
    assert.are.same(first, order())
    assert.are_not.same(first[1], first[2])
    for _, list in ipairs(first) do
      table.sort(list)
      assert.are.same({ 1, 2, 3, 4, 5, 6, 7 }, list)
    end
  end)

  it("has independent iterators, and works over subsets and other datasets", function()
    local loader = data.DataLoader(set, { batch_size = 4 })
    local a, b = loader:iter(), loader:iter()
    assert.are.same({ 1, 2, 3, 4 }, a():totable())
    assert.are.same({ 1, 2, 3, 4 }, b():totable())
    assert.are.same({ 5, 6, 7 }, a():totable())
    assert.is_nil(a())
    assert.is_nil(a())
    local subset = data.Subset(set, { 7, 5 })
    assert.are.same({ { 7, 5 } }, epoch(data.DataLoader(subset, { batch_size = 4 })))
    assert.matches("unknown option 'batch'; known: batch_size",
      message_of(data.DataLoader, set, { batch = 3 }))
    assert.matches("expected a dataset", message_of(data.DataLoader, { 1, 2 }))
  end)
end)

describe("data.csv", function()
  it("reads numbers into a tensor", function()
    local t = assert(data.csv(file_of("1,2.5,-3e2\n 4 ,5,nan\r\n-inf,+7,8.\n")))
    assert.are.equal("float32", t.dtype)
    local rows = t:totable()
    assert.are.same({ 1, 2.5, -300 }, rows[1])
    assert.are.same({ 4, 5 }, { rows[2][1], rows[2][2] })
    assert.is_true(rows[2][3] ~= rows[2][3])
    assert.are.same({ -math.huge, 7, 8 }, rows[3])
    local ints = assert(data.csv(file_of("1;2\n3;4"), { sep = ";", dtype = "int64" }))
    assert.are.equal("int64", ints.dtype)
    assert.are.same({ { 1, 2 }, { 3, 4 } }, ints:totable())
  end)

  it("takes names from the header, and skips lines", function()
    local t, names = data.csv(file_of('# a comment\nheight,"the ""width"""\n1,2\n'),
      { header = true, skip = 1 })
    assert.are.same({ { 1, 2 } }, t:totable())
    assert.are.same({ "height", 'the "width"' }, names)
  end)

  it("reads text: quotes, separators and line breaks in fields, CRLF, a byte order mark", function()
    local rows = assert(data.csv(file_of(
      "\239\187\191a,\"b,\"\"c\"\"\",\r\n\"line 1\nline 2\",\"\",é\r\n"), { dtype = "string" }))
    assert.are.same({ { "a", 'b,"c"', "" }, { "line 1\nline 2", "", "é" } }, rows)
    assert.are.same({}, data.csv(file_of(""), { dtype = "string" }))
    assert.are.same({ { "x" } }, data.csv(file_of('"x"'), { dtype = "string" }))
    local tabs = data.csv(file_of("a\tb\n"), { sep = "\t", dtype = "string" })
    assert.are.same({ { "a", "b" } }, tabs)
  end)

  it("names line and column of what it cannot read", function()
    local function fails(bytes, options)
      local t, message = data.csv(file_of(bytes), options)
      assert.is_nil(t)
      return message
    end
    assert.matches("line 2, column 1: 'x' is no number$", fails("1,2\nx,4\n"))
    assert.matches("line 1, column 2: 'b' is no number; pass {header = true}", fails("1,b\n3,4\n"))
    assert.matches("line 3, column 2: '' is no number", fails("1,2\n3,4\n5,\n"))
    assert.matches("line 1, column 1: '0x10' is no number", fails("0x10,2\n"))
    assert.matches("line 3: 3 fields, expected 2", fails("1,2\n3,4\n5,6,7\n"))
    assert.matches("line 2: a quoted field has no end", fails('1,2\n"3,4\n5,6'))
    assert.matches("line 1, column 1: text follows the field", fails('"1"x,2\n'))
    assert.matches("line 1, column 2: text follows the field", fails('1,2"3"\n'))
    assert.matches("line 2, column 2: '2.5' is no int64",
      fails("1,2\n3,2.5\n", { dtype = "int64" }))
    assert.matches("line 1, column 1: '256' is no uint8", fails("256,2\n", { dtype = "uint8" }))
    assert.matches("'1e2e3' is no number", fails("1e2e3\n"))
    assert.matches("'infinity' is no number", fails("infinity\n"))
    assert.matches("'1 2' is no number", fails("1 2\n"))
    assert.matches("'%-+%.%.%.' is no number", fails(("-"):rep(100)))
    assert.matches("line 2: 1 fields, expected 2", fails("a,b\n1\n", { header = true }))
    -- Lines are counted inside quoted fields too.
    assert.matches("line 3: 1 fields, expected 2", fails('"a\nb",1\nx\n', { dtype = "string" }))
    assert.matches("there are no rows", fails(""))
    assert.matches("there are no rows", fails("a,b\n", { header = true }))
    local t, message = data.csv("/nowhere/at/all.csv")
    assert.is_nil(t)
    assert.matches("/nowhere/at/all.csv: No such file", message)
    t, message = data.csv("/")
    assert.is_nil(t)
    assert.matches("directory", message)
    assert.matches("'sep' is string ',,'", message_of(data.csv, "x", { sep = ",," }))
  end)
end)

-- Bytes of an IDX file.
local function idx(kind, shape, bytes)
  local text = { "\0\0", string.char(kind, #shape) }
  for _, size in ipairs(shape) do
    text[#text + 1] = string.char(math.floor(size / 2 ^ 24) % 256, math.floor(size / 65536) % 256,
      math.floor(size / 256) % 256, size % 256)
  end
  return table.concat(text) .. bytes
end

describe("data.idx", function()
  it("reads every element type", function()
    local function check(kind, bytes, dtype, values)
      local t = assert(data.idx(file_of(idx(kind, { #values }, bytes))))
      assert.are.equal(dtype, t.dtype)
      assert.are.same(values, t:totable())
    end
    check(0x08, "\0\1\255", "uint8", { 0, 1, 255 })
    check(0x09, "\0\1\255", "int8", { 0, 1, -1 })
    check(0x0B, "\1\2\255\254\128\0", "int32", { 258, -2, -32768 })
    check(0x0C, "\0\0\1\2\255\255\255\255", "int32", { 258, -1 })
    check(0x0D, "\63\192\0\0\192\0\0\0", "float32", { 1.5, -2 })
    check(0x0E, "\63\248\0\0\0\0\0\0", "float64", { 1.5 })
    local matrix = assert(data.idx(file_of(idx(0x08, { 2, 3 }, "\1\2\3\4\5\6"))))
    assert.are.same({ { 1, 2, 3 }, { 4, 5, 6 } }, matrix:totable())
  end)

  it("gives nil and a message for damaged files", function()
    local function fails(bytes)
      local t, message = data.idx(file_of(bytes))
      assert.is_nil(t)
      return message
    end
    assert.matches("no IDX file", fails(""))
    assert.matches("no IDX file", fails("\0\0\8"))
    assert.matches("no IDX file", fails("\1\0\8\1\0\0\0\0"))
    assert.matches("no IDX file", fails("\0\0\7\1\0\0\0\0"))
    assert.matches("ends too early", fails("\0\0\8\3\0\0\0\1\0\0"))
    assert.matches("9 dimensions", fails("\0\0\8\9" .. ("\0"):rep(36)))
    assert.matches("2 bytes of elements, the sizes %(3%) need 3", fails(idx(8, { 3 }, "ab")))
    assert.matches("4 bytes of elements, the sizes %(3%) need 3", fails(idx(8, { 3 }, "abcd")))
    -- 2^32 - 1 to the eighth overflows any integer.
    assert.matches("need", fails("\0\0\14\8" .. ("\255"):rep(32) .. "x"))
    local t, message = data.idx("/nowhere.idx")
    assert.is_nil(t)
    assert.matches("No such file", message)
  end)
end)

describe("compressed files", function()
  -- "1,2\n3,4\n" by gzip; without zlib the reader says what is missing.
  local packed = "\31\139\8\0\0\0\0\0\2\255\51\212\49\226\50\214\49\225\2\0\71\147\108\175"
    .. "\8\0\0\0"

  it("are read through, and refused when damaged", function()
    local t = data.csv(file_of(packed))
    assert.are.same({ { 1, 2 }, { 3, 4 } }, t and t:totable())
    -- Two members in a row are one file.
    t = data.csv(file_of(packed .. packed))
    assert.are.same({ 4, 2 }, t and t.shape)
    local bad, message = data.csv(file_of(packed:sub(1, 15)))
    assert.is_nil(bad)
    assert.matches("ends too early", message)
    for i = 11, #packed do
      local other = string.char((packed:byte(i) + 1) % 256)
      bad, message = data.csv(file_of(packed:sub(1, i - 1) .. other .. packed:sub(i + 1)))
      assert.is_nil(bad)
      assert.is_string(message)
    end
    bad = data.csv(file_of(packed .. "garbage"))
    assert.is_nil(bad)
  end)
end)

describe("real data", function()
  local here = debug.getinfo(1, "S").source:match("^@(.*)spec/lua/") or ""

  it("the digits carried with the examples are complete", function()
    local t = assert(data.csv(here .. "examples/data/digits.csv.gz"))
    assert.are.same({ 1797, 65 }, t.shape)
    assert.are.equal(16, t:narrow(2, 1, 64):max():item())
    assert.are.equal(561718, t:narrow(2, 1, 64):sum():item())
    assert.are.equal(8070, t:select(2, 65):sum():item())
  end)

  it("MNIST's files", function()
    local folder = here .. "../shared/data/mnist/"
    local file = io.open(folder .. "t10k-labels-idx1-ubyte.gz", "rb")
    if not file then return pending("the MNIST files are not here") end
    file:close()
    local y = assert(data.idx(folder .. "t10k-labels-idx1-ubyte.gz"))
    assert.are.same({ 10000 }, y.shape)
    local first = y:narrow(1, 1, 5):totable()
    assert.are.same({ 7, 2, 1, 0, 4 }, first)
    local x = assert(data.idx(folder .. "t10k-images-idx3-ubyte.gz"))
    assert.are.same({ 10000, 28, 28 }, x.shape)
    assert.are.equal("uint8", x.dtype)
  end)
end)
