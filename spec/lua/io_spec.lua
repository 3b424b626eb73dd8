-- nyx.save and nyx.load: everything that can be saved comes back equal; the file is a valid
-- safetensors file; damaged and hostile files give nil and a message.
local nyx = require "nyx"
local nn, optim = nyx.nn, nyx.optim

local paths = {}
local function path_of()
  local path = os.tmpname()
  paths[#paths + 1] = path
  return path
end

after_each(function()
  for i, path in ipairs(paths) do
    os.remove(path)
    paths[i] = nil
  end
end)

local function message_of(...)
  local ok, text = pcall(...)
  assert.is_false(ok)
  return text
end

local function round_trip(object, options)
  local path = path_of()
  assert(nyx.save(path, object))
  return assert(nyx.load(path, options)), path
end

local function bytes_of(path)
  local file = assert(io.open(path, "rb"))
  local bytes = file:read("*a")
  file:close()
  return bytes
end

local function write(path, bytes)
  local file = assert(io.open(path, "wb"))
  file:write(bytes)
  file:close()
  return path
end

-- A safetensors file of a header's text and the bytes after it.
local function file_of(header, bytes, length)
  length = length or #header
  local prefix = {}
  for i = 1, 8 do
    prefix[i] = string.char(length % 256)
    length = math.floor(length / 256)
  end
  return write(path_of(), table.concat(prefix) .. header .. (bytes or ""))
end

describe("plain values", function()
  it("come back as they were", function()
    local object = {
      1, 2.5, -3, "text", true, false, { "nested", { deep = "er" } }, {},
      name = "net", ["with space"] = 1e300, tiny = 5e-324, third = 1 / 3, close = 1 + 2 ^ -52,
      negative_zero = 1 / -math.huge,
      big = 2 ^ 53, ["ключ"] = "значение",
      infinite = math.huge, negative = -math.huge, [10] = "ten", [-1.5] = "odd", [true] = "yes",
      ["$"] = "dollar", quotes = '"\\/\b\n\t\1', bytes = "\0\255\128zero",
    }
    local back = round_trip(object)
    assert.are.same(object, back)
    local nan = round_trip({ 0 / 0 })[1]
    assert.is_true(nan ~= nan)
    for _, value in ipairs { 7, "x", true } do assert.are.equal(value, round_trip(value)) end
    if math.type then
      assert.are.equal(math.maxinteger, round_trip(math.maxinteger))
      assert.are.equal(math.mininteger, round_trip({ math.mininteger })[1])
    end
  end)

  it("keep shared and cyclic tables", function()
    local shared = { 1 }
    local object = { a = shared, b = shared, list = { shared } }
    object.itself = object
    local back = round_trip(object)
    assert.is_true(rawequal(back.a, back.b))
    assert.is_true(rawequal(back.a, back.list[1]))
    assert.is_true(rawequal(back, back.itself))
    assert.are.same({ 1 }, back.a)
  end)

  it("that cannot be saved are named", function()
    local path = path_of()
    assert.matches("io_spec.lua:%d+: nyx.save: list.2 is a function, which cannot be saved",
      message_of(function() nyx.save(path, { list = { 1, print } }) end))
    assert.matches("nyx.save: optimizer is an object with a metatable; save its state_dict",
      message_of(nyx.save, path, { optimizer = optim.SGD({ nyx.ones({ 1 }) }) }))
    assert.matches("nested more than 100 deep", message_of(function()
      local deep = {}
      for _ = 1, 200 do deep = { deep } end
      nyx.save(path, deep)
    end))
    assert.matches("'object' is nil", message_of(nyx.save, path, nil))
    assert.matches("'path' is number 1", message_of(nyx.save, 1, {}))
  end)
end)

describe("tensors", function()
  it("of every dtype and shape come back exactly", function()
    for _, dtype in ipairs { "float64", "float32", "float16", "bfloat16", "int64", "int32",
      "int8", "uint8", "bool" } do
      for _, shape in ipairs { {}, { 3 }, { 2, 3 }, { 0, 4 }, { 1, 2, 1, 3 } } do
        local t = nyx.randn(shape, { dtype = "float64" }):mul(10):abs():to(dtype)
        local back = round_trip(t)
        assert.are.equal(dtype, back.dtype)
        assert.are.same(t.shape, back.shape)
        assert.is_true(back:equal(t))
      end
    end
  end)

  it("keep identity and requires_grad; views are saved as what they show", function()
    local t = nyx.arange(1, 13):reshape({ 3, 4 })
    local leaf = nyx.ones({ 2 }):requires_grad_(true)
    local back = round_trip({ a = t, b = t, turned = t:t(), row = t[2], leaf = leaf })
    assert.is_true(rawequal(back.a, back.b))
    assert.are.same(t:t():totable(), back.turned:totable())
    assert.are.same({ 5, 6, 7, 8 }, back.row:totable())
    assert.is_true(back.leaf.requires_grad)
    assert.is_true(back.leaf.is_leaf)
    assert.is_false(back.a.requires_grad)
  end)

  it("have names of their own, whatever the keys are", function()
    local back = round_trip({ ["a.b"] = nyx.ones({ 1 }), a = { b = nyx.zeros({ 1 }) },
      ["__metadata__"] = nyx.full({ 1 }, 3), ["\255"] = nyx.full({ 1 }, 4) })
    assert.are.equal(1, back["a.b"]:item())
    assert.are.equal(0, back.a.b:item())
    assert.are.equal(3, back["__metadata__"]:item())
    assert.are.equal(4, back["\255"]:item())
  end)
end)

local Net = nyx.class("IoSpecNet", nn.Module)

function Net:init(width)
  self.width = width
  self.body = nn.Sequential(nn.Conv2d(1, width, 3, { padding = 1 }), nn.BatchNorm2d(width),
    nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Dropout(0.5))
  self.head = nn.Linear(width * 4, 3)
  self.tied = self.head
  self.notes = { "first", version = 2 }
end

function Net:forward(x)
  return self.head(self.body(x))
end

describe("modules", function()
  it("come back with their tree, state and settings", function()
    nn.register(Net)
    local net = Net(5)
    net(nyx.randn({ 4, 1, 4, 4 })) -- moves the running statistics
    net:eval()
    net.head.bias:requires_grad_(false)
    local back, path = round_trip(net)
    assert.are.equal("IoSpecNet", back:class_name())
    assert.are.equal(tostring(net), tostring(back))
    local x = nyx.randn({ 2, 1, 4, 4 })
    assert.is_true(net(x):equal(back(x)))
    assert.are.same({ "first", version = 2 }, back.notes)
    assert.are.equal(5, back.width)
    assert.is_true(rawequal(back.head, back.tied))
    assert.is_false(back.training)
    assert.is_false(back.head.bias.requires_grad)
    assert.is_true(back.head.weight.requires_grad)
    local function names(module)
      local list = {}
      for name in module:named_parameters() do list[#list + 1] = name end
      for name in module:named_buffers() do list[#list + 1] = name end
      return list
    end
    assert.are.same(names(net), names(back))
    -- Inside, tensors have the names of the state.
    local bytes = bytes_of(path)
    for name in pairs(net:state_dict()) do
      if not name:find("^tied") then
        assert.is_truthy(bytes:find('"' .. name .. '":{', 1, true), name)
      end
    end
    -- It can be trained further.
    back:train()
    back(x):sum():backward()
    assert.is_not_nil(back.head.weight.grad)
  end)

  it("of an unknown class are refused, and given one are built", function()
    local Other = nyx.class("Unregistered", nn.Module)
    function Other:init() self.layer = nn.Linear(1, 1) end
    local path = path_of()
    assert(nyx.save(path, Other()))
    local object, message = nyx.load(path)
    assert.is_nil(object)
    assert.matches("class 'Unregistered' is not registered; call nyx.nn.register", message)
    object = assert(nyx.load(path, { classes = { Unregistered = Other } }))
    assert.are.equal("Unregistered", object:class_name())
    assert.matches("'Linear' is a class of Nyx", message_of(nn.register,
      nyx.class("Linear", nn.Module)))
    assert.matches("expected a class", message_of(nn.register, {}))
  end)

  it("with every layer and loss there is", function()
    local weights = nyx.tensor({ 1, 2, 3 })
    local all = nn.ModuleList({
      nn.Linear(2, 3), nn.Embedding(3, 2, { padding_idx = 1 }), nn.Conv2d(1, 2, 3),
      nn.MaxPool2d(2), nn.AvgPool2d({ 2, 3 }), nn.BatchNorm1d(2), nn.BatchNorm2d(2),
      nn.LayerNorm({ 2, 3 }), nn.RMSNorm(2), nn.Dropout(0.1), nn.Flatten(), nn.Identity(),
      nn.LeakyReLU(0.3), nn.GELU("tanh"), nn.Softmax(1), nn.ReLU(),
      nn.CrossEntropyLoss({ weight = weights, label_smoothing = 0.1 }), nn.HuberLoss({ delta = 2 }),
      nn.GroupNorm(2, 4, { affine = false }),
    })
    local back = round_trip(all)
    assert.are.equal(tostring(all), tostring(back))
    assert.are.equal(#all, #back)
    assert.is_true(back[17].weight:equal(weights))
    assert.are.equal(2, back[18].delta)
    assert.are.same(all[3].options, back[3].options)
  end)

  it("and an optimiser's state train on as if nothing had happened", function()
    nyx.manual_seed(4)
    local model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))
    local optimizer = optim.AdamW(model:parameters(), { lr = 0.1, amsgrad = true })
    local x, y = nyx.randn({ 8, 3 }), nyx.randn({ 8, 1 })
    local function train(m, o)
      o:zero_grad()
      nn.MSELoss()(m(x), y):backward()
      o:step()
    end
    train(model, optimizer)
    train(model, optimizer)
    local saved = round_trip({ model = model, optimizer = optimizer:state_dict(), epoch = 2 })
    assert.are.equal(2, saved.epoch)
    local again = optim.AdamW(saved.model:parameters(), { lr = 1 })
    again:load_state_dict(saved.optimizer)
    for _ = 1, 3 do
      train(model, optimizer)
      train(saved.model, again)
    end
    for name, tensor in pairs(model:state_dict()) do
      assert.is_true(tensor:equal(saved.model:state_dict()[name]), name)
    end
  end)
end)

describe("files", function()
  it("are safetensors files that others can read", function()
    local _, path = round_trip({ x = nyx.tensor({ 1, 2 }),
      y = nyx.tensor({ 3 }, { dtype = "int8" }) })
    local bytes = bytes_of(path)
    local length = bytes:byte(1) + 256 * bytes:byte(2)
    assert.are.equal(0, length % 8)
    assert.are.equal(8 + length + 9, #bytes)
    local header = bytes:sub(9, 8 + length)
    assert.are.equal("{", header:sub(1, 1))
    assert.is_truthy(header:find('"x":{"data_offsets":[0,8],"dtype":"F32","shape":[2]}', 1, true))
    assert.is_truthy(header:find('"y":{"data_offsets":[8,9],"dtype":"I8","shape":[1]}', 1, true))
    assert.are.equal("\0\0\128\63\0\0\0\64\3", bytes:sub(9 + length))
  end)

  it("of others are tables of tensors", function()
    local path = file_of('{"b":{"dtype":"U8","shape":[2],"data_offsets":[4,6]},'
      .. '"a.w":{"dtype":"F32","shape":[1,1],"data_offsets":[0,4]},'
      .. '"__metadata__":{"format":"pt"}}  ', "\0\0\128\63\7\9")
    local tensors = assert(nyx.load(path))
    assert.are.same({ { 1 } }, tensors["a.w"]:totable())
    assert.are.same({ 7, 9 }, tensors.b:totable())
    assert.are.same({}, assert(nyx.load(file_of("{}", ""))))
  end)

  it("appear whole or not at all", function()
    local path = path_of()
    assert(nyx.save(path, { 1 }))
    assert.has_error(function() nyx.save(path, { print }) end)
    assert.are.same({ 1 }, nyx.load(path))
    local ok, message = nyx.save("/nowhere/at/all.nyx", { 1 })
    assert.is_nil(ok)
    assert.matches("/nowhere/at/all.nyx: No such file or directory", message)
    ok, message = nyx.save("/proc/self/nothing.nyx", { 1 })
    assert.is_nil(ok)
    assert.is_string(message)
    ok, message = nyx.load("/nowhere/at/all.nyx")
    assert.is_nil(ok)
    assert.matches("No such file", message)
    ok, message = nyx.load("/")
    assert.is_nil(ok)
    assert.is_string(message)
  end)
end)

describe("what a file takes the place of", function()
  local folder = os.tmpname()
  os.remove(folder)
  assert(os.execute("mkdir " .. folder))
  local here = folder .. "/"
  teardown(function() os.execute("rm -r " .. folder) end)

  local function shell(command)
    local pipe = assert(io.popen("cd " .. folder .. " && " .. command))
    local output = pipe:read("*a")
    pipe:close()
    return output
  end

  it("keeps its mode, and a link stays one", function()
    assert(nyx.save(here .. "target.nyx", { 1 }))
    shell("chmod 640 target.nyx; mkdir other; ln -s ../target.nyx other/link.nyx")
    assert(nyx.save(here .. "other/link.nyx", { 2 }))
    assert.are.equal("../target.nyx\n", shell("readlink other/link.nyx"))
    assert.are.same({ 2 }, nyx.load(here .. "target.nyx"))
    assert.matches("^%-rw%-r%-%-%-%-%-", shell("ls -l target.nyx"))
    assert.are.equal("link.nyx\n", shell("ls other"))
    shell("ln -s gone.nyx loose.nyx")
    local ok, message = nyx.save(here .. "loose.nyx", { 3 })
    assert.is_nil(ok)
    assert.matches("loose.nyx: it is a link that leads to no file", message)
    assert.are.equal("gone.nyx\n", shell("readlink loose.nyx"))
  end)

  it("is a regular file", function()
    shell("mkfifo pipe.nyx; ln -s pipe.nyx linked.nyx; mkdir -p other")
    for name, kind in pairs { ["pipe.nyx"] = "a pipe", ["linked.nyx"] = "a pipe",
      other = "a directory" } do
      local ok, message = nyx.save(here .. name, { 1 })
      assert.is_nil(ok)
      assert.are.equal(("%s%s: it is %s, expected a regular file or a new name"):format(here, name,
        kind), message)
    end
    assert.matches("^p", shell("ls -l pipe.nyx"))
    local object, message = nyx.load(folder)
    assert.is_nil(object)
    assert.are.equal(folder .. ": it is a directory, expected a file", message)
    assert.matches("a directory", select(2, nyx.data.csv(folder)))
  end)
end)

describe("damaged and hostile files", function()
  local function refused(path, pattern)
    local object, message = nyx.load(path)
    assert.is_nil(object)
    assert.is_string(message)
    if pattern then assert.matches(pattern, message) end
  end

  local function entry(text) return '{"a":' .. text .. "}" end
  local good = '{"dtype":"F32","shape":[2],"data_offsets":[0,8]}'

  it("cut anywhere are refused", function()
    local _, path = round_trip({ x = nyx.ones({ 3 }), net = nn.Linear(2, 2) })
    local bytes = bytes_of(path)
    for n = 0, #bytes - 1, 7 do
      refused(write(path, bytes:sub(1, n)))
    end
    refused(write(path, bytes .. "x"), "bytes of tensors")
    assert.is_table(nyx.load(write(path, bytes)))
  end)

  it("with any byte of the header changed never do harm", function()
    local _, path = round_trip({ x = nyx.ones({ 3 }), net = nn.Linear(2, 2), list = { 1, "two" } })
    local bytes = bytes_of(path)
    for i = 1, bytes:byte(1) + 256 * bytes:byte(2) + 8 do
      for _, add in ipairs { 1, 128 } do
        local changed = string.char((bytes:byte(i) + add) % 256)
        write(path, bytes:sub(1, i - 1) .. changed .. bytes:sub(i + 1))
        local ok, object, message = pcall(nyx.load, path)
        assert.is_true(ok, ("byte %d: %s"):format(i, tostring(object)))
        assert.is_true(object ~= nil or type(message) == "string")
      end
    end
  end)

  it("with impossible lengths are refused", function()
    refused(file_of("{}", "", 3), "claims a header")
    refused(file_of("{}", "", 2 ^ 40), "claims a header")
    refused(write(path_of(), ("\255"):rep(8) .. "{}"), "claims a header")
    refused(write(path_of(), ("\0"):rep(8)), "claims a header")
    refused(write(path_of(), "short"), "too short")
    refused(write(path_of(), ""), "too short")
  end)

  it("with headers that are no header are refused", function()
    refused(file_of("[]"), "no JSON object")
    refused(file_of(" {}"), "no JSON object")
    refused(file_of('{"a":}'), "not JSON at byte 6")
    refused(file_of("{} x"), "bytes follow")
    refused(file_of('{"a":1}'), "'a' is no object")
    refused(file_of('{"a":' .. ("["):rep(600) .. ("]"):rep(600) .. "}"), "nested too deeply")
    refused(file_of('{"a":' .. ("["):rep(5000)), "bad header")
    refused(file_of('{"a":' .. good .. ',"a":' .. good .. "}", ("x"):rep(8)), "a key twice")
    refused(file_of('{"__metadata__":1}'), "metadata")
    refused(file_of('{"__metadata__":{"nyx":1}}'), "metadata")
  end)

  it("with zero bytes and raw control characters in JSON are refused", function()
    local eight = ("x"):rep(8)
    -- An escaped backslash, then "u0000".
    assert.is_table(nyx.load(file_of('{"a\\\\u0000":' .. good .. "}", eight)))
    refused(file_of('{"a\\u0000b":' .. good .. "}", eight), "a zero byte")
    refused(file_of('{"a\\u0000b":' .. good .. ',"a\\u0000c":' .. good .. "}", eight),
      "a zero byte")
    refused(file_of(entry('{"dtype":"F32\\u0000zz","shape":[2],"data_offsets":[0,8]}'), eight),
      "a zero byte")
    refused(file_of('{"a\0b":' .. good .. "}", eight), "control character that is not escaped")
    refused(file_of('{"a\nb":' .. good .. "}", eight), "control character that is not escaped")
    refused(file_of('{"a":\0' .. good .. "}", eight), "control character stands between")
    refused(file_of('{"a":\1' .. good .. "}", eight), "control character stands between")
    assert.is_table(nyx.load(file_of('{"a":\r\n\t ' .. good .. "}", eight)))
  end)

  it("with impossible tensors are refused", function()
    local eight = ("x"):rep(8)
    assert.is_table(nyx.load(file_of(entry(good), eight)))
    refused(file_of(entry('{"dtype":"F33","shape":[2],"data_offsets":[0,8]}'), eight), "'F33'")
    refused(file_of(entry('{"shape":[2],"data_offsets":[0,8]}'), eight), "dtype")
    refused(file_of(entry('{"dtype":[],"shape":[2],"data_offsets":[0,8]}'), eight), "dtype")
    refused(file_of(entry('{"dtype":"F32","data_offsets":[0,8]}'), eight), "no shape")
    refused(file_of(entry('{"dtype":"F32","shape":{"x":2},"data_offsets":[0,8]}'), eight),
      "no shape")
    refused(file_of(entry('{"dtype":"F32","shape":[2],"data_offsets":[0]}'), eight),
      "no data_offsets")
    refused(file_of(entry('{"dtype":"F32","shape":[2],"data_offsets":[0,8],"x":1}'), eight),
      "unknown member")
    refused(file_of(entry('{"dtype":"F32","shape":[3],"data_offsets":[0,8]}'), eight), "needs 12")
    refused(file_of(entry('{"dtype":"F32","shape":[-2],"data_offsets":[0,8]}'), eight),
      "impossible shape")
    refused(file_of(entry('{"dtype":"F32","shape":[0.5],"data_offsets":[0,2]}'), "xx"),
      "impossible shape")
    refused(file_of(entry('{"dtype":"F32","shape":["2"],"data_offsets":[0,8]}'), eight),
      "impossible shape")
    refused(file_of(entry('{"dtype":"F32","shape":[4294967296,4294967296,2],'
      .. '"data_offsets":[0,8]}'), eight), "impossible shape")
    refused(file_of(entry('{"dtype":"F32","shape":[0,9007199254740992,9007199254740992],'
      .. '"data_offsets":[0,0]}'), ""), "impossible shape")
    refused(file_of(entry('{"dtype":"U8","shape":[1,1,1,1,1,1,1,1,1],"data_offsets":[0,1]}'), "x"),
      "9 dimensions")
    refused(file_of(entry('{"dtype":"BOOL","shape":[2],"data_offsets":[0,2]}'), "\1\2"),
      "neither 0 nor 1")
  end)

  it("whose tensors overlap, leave gaps or the file are refused", function()
    local function two(first, second, bytes)
      return file_of(('{"a":{"dtype":"U8","shape":[%d],"data_offsets":[%d,%d]},'
        .. '"b":{"dtype":"U8","shape":[%d],"data_offsets":[%d,%d]}}'):format(
        first[2] - first[1], first[1], first[2], second[2] - second[1], second[1], second[2]),
        ("x"):rep(bytes))
    end
    assert.is_table(nyx.load(two({ 0, 2 }, { 2, 4 }, 4)))
    refused(two({ 0, 3 }, { 2, 4 }, 4), "overlap")
    refused(two({ 0, 2 }, { 0, 2 }, 2), "overlap")
    refused(two({ 0, 1 }, { 2, 4 }, 4), "gap")
    refused(two({ 1, 2 }, { 2, 4 }, 4), "gap")
    refused(two({ 0, 2 }, { 2, 4 }, 3), "3 bytes of tensors, its header describes 4")
    refused(two({ 0, 2 }, { 2, 4 }, 5), "5 bytes of tensors")
  end)

  it("larger than memory are refused", function()
    local path = file_of(entry('{"dtype":"F32","shape":[1000000],"data_offsets":[0,4000000]}'))
    local file = assert(io.open(path, "r+b"))
    file:seek("end", 4000000 - 1)
    file:write("\0")
    file:close()
    local limit = nyx.memory_limit(nyx.memory().live + 1000000)
    local ok, object, message = pcall(nyx.load, path)
    nyx.memory_limit(limit)
    assert.is_true(ok)
    assert.is_nil(object)
    assert.matches("memory limit", message)
    assert.are.equal(1000000, nyx.load(path).a:numel())
  end)

  -- A file with one tensor "w" and the given tree.
  local function tree_file(tree)
    local escaped = tree:gsub('[\\"]', "\\%0")
    return file_of('{"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},'
      .. '"__metadata__":{"nyx":"' .. escaped .. '"}}', "\0\0\0\0")
  end

  it("with damaged trees are refused", function()
    local function bad(root, pattern)
      refused(tree_file('{"version":1,"root":' .. root .. "}"), pattern)
    end
    refused(tree_file("{"), "damaged")
    refused(tree_file("7"), "damaged")
    refused(tree_file('{"version":2,"root":1}'), "version 2")
    refused(tree_file('{"version":1}'), "version 1")
    bad('{"$":"tensor","name":"other"}', "tensor 'other' is missing")
    bad('{"$":"tensor"}', "missing")
    bad('{"$":"same","as":1}', "leads nowhere")
    bad('{"$":"surprise"}', "kind 'surprise' is unknown")
    bad('{"$":7}', "kind '7' is unknown")
    bad('{"$":"bytes","value":"xy"}', "unknown")
    bad('{"$":"integer","value":"0x10"}', "unknown")
    bad('{"$":"number","value":"1"}', "unknown")
    bad('{"$":"table","pairs":[[1]]}', "damaged")
    bad('{"$":"table","pairs":[[1,2],[1,3]]}', "damaged")
    bad('{"$":"table","pairs":[[{"$":"number","value":"nan"},3]]}', "damaged")
    bad('{"$":"table"}', "no pairs")
    bad('{"$":"module","class":"Linear"}', "no fields")
    bad('{"$":"module","fields":[]}', "class 'nil'")
    bad('{"$":"module","class":"os","fields":[]}', "class 'os' is not registered")
    bad('{"$":"module","class":"__index","fields":[]}', "not registered")
  end)

  it("cannot replace methods or a module's own books", function()
    local function field(text, pattern)
      refused(tree_file('{"version":1,"root":{"$":"module","class":"Linear","fields":[' .. text
        .. "]}}"), pattern)
    end
    field('["forward","x"]', "named 'forward'")
    field('["parameters","x"]', "named 'parameters'")
    field('["class_name",1]', "named 'class_name'")
    field('["__gc","x"]', "named '__gc'")
    field('["_order",[1]]', "named '_order'")
    field('["_kinds",{"x":"module"}]', "named '_kinds'")
    field('["x",1],["x",2]', "named 'x'")
    field('["x"]', "damaged")
    field('[true,1]', "damaged")
    field('7', "damaged")
    field('["x",1,"parameter"]', "is no parameter")
    field('["x",{"$":"tensor","name":"w"},"module"]', "is no module")
    field('["x",{"$":"tensor","name":"w"},"boss"]', "is no boss")
    -- What is merely odd gives an object that fails when used, like one built by hand.
    local odd = assert(nyx.load(tree_file('{"version":1,"root":{"$":"module","class":"Linear",'
      .. '"fields":[["weight",{"$":"tensor","name":"w"},"parameter"]]}}')))
    assert.is_false((pcall(odd, nyx.ones({ 2, 2 }))))
    assert.matches("Linear", tostring(odd))
    local loop = assert(nyx.load(tree_file('{"version":1,"root":{"$":"module","class":'
      .. '"Sequential","fields":[[1,{"$":"same","as":1},"module"]]}}')))
    assert.matches("Sequential", tostring(loop))
    assert.is_false((pcall(loop, nyx.ones(2))))
  end)

  it("are loaded with JSON of any size without the stack running out", function()
    local wide = {}
    for i = 1, 20000 do wide[i] = i end
    assert.are.equal(20000, #assert(nyx.load(tree_file('{"version":1,"root":['
      .. table.concat(wide, ",") .. "]}"))))
    assert.is_table(nyx.load(tree_file('{"version":1,"root":' .. ("["):rep(450)
      .. ("]"):rep(450) .. "}")))
  end)
end)
