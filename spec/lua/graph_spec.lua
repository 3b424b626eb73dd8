-- The graph under a tensor: x.grad_fn, nyx.graph.dot and nyx.graph.save.
local nyx = require "nyx"
local nn = nyx.nn

local function fails(pattern, fn, ...)
  local ok, message = pcall(fn, ...)
  assert.is_false(ok)
  assert.matches(pattern, tostring(message))
end

local function read(path)
  local file = io.open(path, "rb")
  if not file then return nil end
  local text = file:read("*a")
  file:close()
  return text
end

local has_dot = (function()
  local pipe = io.popen("dot -V 2>&1; echo status $?")
  local text = pipe:read("*a")
  pipe:close()
  return text:find("status 0", 1, true) ~= nil
end)()

describe("x.grad_fn", function()
  local w = nyx.ones(2, 3, { requires_grad = true })
  local y = (w * nyx.ones(2, 3)):exp():sum()

  it("tells what made a tensor, and from what", function()
    local sum = y.grad_fn
    assert.equal("sum", sum.name)
    assert.matches("^sum %(nyx.Node %d+%)$", tostring(sum))
    local exp = sum:inputs()[1].node
    assert.equal("exp", exp.name)
    assert.is_true(exp.order < sum.order)
    assert.is_true(exp == sum:inputs()[1].node)
    assert.is_false(exp == sum)
    assert.is_false(exp == w)
    assert.is_false(w == exp)
    assert.same({ 2, 3 }, sum:inputs()[1].shape)
    assert.same({ { shape = {}, dtype = "float32" } }, sum:outputs())
    local mul = exp:inputs()[1].node
    local inputs = mul:inputs() -- the constant is none
    assert.equal(1, #inputs)
    assert.is_true(inputs[1].leaf == w)
    assert.equal(1, inputs[1].input)
    assert.is_nil(inputs[1].node)
  end)

  it("tells what is kept, until it is freed", function()
    local z = w:exp()
    local node = z.grad_fn
    local output = { what = "output 1", shape = { 2, 3 }, dtype = "float32", bytes = 24 }
    assert.same({ output }, node:saved())
    assert.is_false(node.freed)
    z:sum():backward()
    w.grad = nil
    assert.is_true(node.freed)
    assert.same({}, node:saved())
  end)

  it("is nil for leaves and has no other fields", function()
    assert.is_nil(w.grad_fn)
    assert.is_nil(y.grad_fn.nothing)
    assert.is_nil(y.grad_fn[1])
  end)

  it("outlives its tensor", function()
    local node
    do
      local t = (w * 2):sin()
      node = t.grad_fn
      t:release()
    end
    collectgarbage()
    assert.equal("mul", node:inputs()[1].node.name)
  end)
end)

describe("graph.dot", function()
  it("draws leaves with names and edges with shapes", function()
    local w = nyx.ones(2, 3, { requires_grad = true })
    local h = w * 2
    local text = nyx.graph.dot((h + h:tanh()):sum(), { names = { w = w, hidden = h } })
    assert.equal([[
digraph nyx {
  node [shape=box, fontname="Helvetica"];
  edge [fontname="Helvetica", fontsize=10];
  n1 [label="mul\nhidden"];
  t1 [shape=ellipse, label="w\n2x3 float32"];
  t1 -> n1 [label="2x3 float32"];
  n2 [label="tanh"];
  n1 -> n2 [label="2x3 float32"];
  n3 [label="add"];
  n1 -> n3 [label="2x3 float32"];
  n2 -> n3 [label="2x3 float32"];
  n4 [label="sum"];
  n3 -> n4 [label="2x3 float32"];
  y1 [shape=plaintext, label="result"];
  n4 -> y1 [label="scalar float32"];
}
]], text)
  end)

  it("names parameters by their module and tells what is saved", function()
    local net = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    local function text()
      return nyx.graph.dot(net(nyx.ones(5, 3)), { names = net, saved = true })
    end
    local first = text()
    for name in net:named_parameters() do
      assert.is_truthy(first:find('label="' .. name .. "\\n", 1, true))
    end
    assert.matches('label="relu\\nsaves 80 B"', first)
    assert.equal(first, text()) -- the same for the same graph
  end)

  it("draws several results over shared leaves", function()
    local w = nyx.ones(2, { requires_grad = true })
    local text = nyx.graph.dot { w:sum(), (w * w):sum(), w }
    local _, leaves = text:gsub("shape=ellipse", "")
    assert.equal(1, leaves)
    assert.matches('label="result 3"', text)
  end)

  it("escapes names", function()
    local w = nyx.ones(1, { requires_grad = true })
    local text = nyx.graph.dot(w:sum(), { names = { ['a"b\\N\nc'] = w } })
    assert.is_truthy(text:find([["a\"b\\N\nc\n1 float32"]], 1, true))
  end)

  it("draws deep graphs", function()
    local x = nyx.ones(1, { requires_grad = true })
    for _ = 1, 20000 do x = x + 1 end
    local _, count = nyx.graph.dot(x):gsub("%->", "")
    assert.equal(20001, count)
  end)

  it("checks what it gets", function()
    fails("no graph", nyx.graph.dot, nyx.ones(2))
    fails("graph.dot: 'y' is number 3", nyx.graph.dot, 3)
    local w = nyx.ones(1, { requires_grad = true })
    fails("names%['w'%] is number 1", nyx.graph.dot, w, { names = { w = 1 } })
    fails("name", nyx.graph.dot, w, { name = {} })
  end)
end)

describe("graph.save", function()
  local w = nyx.ones(2, { requires_grad = true })
  local y = (w * w):sum()
  local base = os.tmpname()
  after_each(function()
    for _, kind in ipairs { "", ".dot", ".svg", ".png", " it's.svg" } do os.remove(base .. kind) end
  end)

  it("writes text", function()
    assert.is_true(nyx.graph.save(y, base .. ".dot"))
    assert.equal(nyx.graph.dot(y), read(base .. ".dot"))
  end)

  it("draws pictures with Graphviz", function()
    if not has_dot then return pending("Graphviz' dot is not here") end
    nyx.graph.save(y, base .. ".svg", { names = { weight = w } })
    assert.matches("<svg", read(base .. ".svg"))
    assert.matches(">weight<", read(base .. ".svg"))
    nyx.graph.save(y, base .. ".png")
    assert.equal("\137PNG", read(base .. ".png"):sub(1, 4))
    nyx.graph.save(y, base .. " it's.svg", { names = { ['"<&>\\'] = w } })
    assert.matches("&lt;&amp;&gt;", read(base .. " it's.svg"))
    local here = "-nyx graph spec.svg" -- not an option
    assert(nyx.graph.save(y, here))
    assert.matches("<svg", read(here))
    os.remove(here)
    local listing = assert(io.popen("ls " .. base .. ".*"))
    assert.is_nil(listing:read("*a"):find("part"))
    listing:close()
    os.remove(base .. ".png")
    os.execute(("ln -s %s.svg %s.png"):format(base, base)) -- a link stays one
    assert(nyx.graph.save(y, base .. ".png"))
    assert.equal("\137PNG", read(base .. ".svg"):sub(1, 4))
  end)

  it("says what is missing", function()
    local function gives(pattern, path, options)
      local ok, message = nyx.graph.save(y, path, options)
      assert.is_nil(ok)
      assert.matches(pattern, message)
      return message
    end
    gives("install it.*apt install graphviz.*%.dot", base .. ".svg", { program = "nyx-has-no-dot" })
    gives("dot could not make", base .. ".svg", { program = "false" })
    gives("dot could not make", base .. ".svg", { program = "true" }) -- and makes nothing
    assert.is_nil(read(base .. ".svg"))
    fails("expected .dot, .gv, .svg", nyx.graph.save, y, base .. ".jpg")
    gives("/x.dot: No such file", base .. ".none/x.dot")
    assert.equal(base .. ".none/x.svg: No such file or directory",
      gives("No such file", base .. ".none/x.svg", { program = "true" }))
  end)
end)
