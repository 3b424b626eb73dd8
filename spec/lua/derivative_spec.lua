-- nyx.derivative: every row's derivatives, as text read back and as functions, against
-- nyx.grad and finite differences; random expressions; the texts of well known functions;
-- errors. A new row is tested by being in the table. Read next: lua/nyx/derivative.lua.
local here = debug.getinfo(1, "S").source:match "^@(.*/)" or "./"
package.path = here .. "../op/?.lua;" .. package.path
local nyx = require "nyx"
local case = require "case"
local unpack = table.unpack or unpack -- luacheck: ignore

local variables = { "x", "y", "z" }

local function numbers(t) return t:reshape(-1):totable() end

-- The first place where two tensors of the same size differ, or nil.
local function mismatch(got, expected, tolerance)
  local a, b = numbers(got), numbers(expected)
  for k = 1, #b do
    local scale = math.max(math.abs(b[k]), 1e-3)
    if not (math.abs(a[k] - b[k]) <= tolerance * scale) then -- luacheck: ignore 581
      return ("element %d is %.17g, expected %.17g"):format(k, a[k], b[k])
    end
  end
end

local function leaves(op, n)
  local list = {}
  for i = 1, #op.inputs do
    list[i] = case.tensor({ n }, "float64", op.domain[1], op.domain[2])
    list[i].requires_grad = true
  end
  return list
end

local function presets(op)
  local values = {}
  for _, attr in ipairs(op.attrs) do values[attr.name] = attr.preset end
  return values
end

-- Options with the attributes of an op put in.
local function with(op, options)
  for name, value in pairs(presets(op)) do options[name] = options[name] or value end
  return options
end

-- Attributes that an expression names; the others would be unknown options.
local function named_in(text, op, options)
  for name, value in pairs(presets(op)) do
    if text:find("%f[%w_]" .. name .. "%f[^%w_]") then options[name] = value end
  end
  return options
end

local function zeros_unless(g, x) return g or nyx.zeros_like(x:detach()) end

-- nyx.grad of op(xs) by input i; by input k of that in addition when k is given.
local function reference(op, xs, i, k)
  local y = nyx[op.name](unpack(xs))
  local g = zeros_unless(nyx.grad(y:sum(), xs[i], { create_graph = k ~= nil }), xs[i])
  if not k then return g end
  if not g.requires_grad then return nyx.zeros_like(xs[k]:detach()) end
  return zeros_unless(nyx.grad(g:sum(), xs[k], {}), xs[k])
end

-- Central differences of op(xs) by input i.
local function differences(op, xs, i, step)
  local plain = {}
  for k, x in ipairs(xs) do plain[k] = x:detach() end
  local middle = plain[i]
  plain[i] = middle + step
  local above = nyx[op.name](unpack(plain))
  plain[i] = middle - step
  return (above - nyx[op.name](unpack(plain))) / (2 * step)
end

-- Whether a text is what nyx.grad gives for input i: nil, or where it is not.
local function text_error(op, i, text, xs)
  local again, f = nyx.derivative(text, named_in(text, op, { order = 0 }))
  local wrong = mismatch(f(unpack(xs)):detach(), reference(op, xs, i), 1e-9)
    or mismatch(f(unpack(xs)):detach(), differences(op, xs, i, 1e-6), 1e-5)
  if wrong then return wrong end
  return again ~= text and not next(presets(op)) and ("read back as " .. again) or nil
end

local rows = {}
for op in nyx.ops() do
  for i = 1, op.text and #op.inputs or 0 do
    if op.gradients[i] then rows[#rows + 1] = { op = op, i = i, by = variables[i] } end
  end
end

describe("derivative of", function()
  local N = 25

  for _, row in ipairs(rows) do
    local op, i, by = row.op, row.i, row.by
    local title = op.name .. " by " .. by

    it(title .. " is its gradient", function()
      case.seed(#op.name + i)
      local xs = leaves(op, N)
      local text, f = nyx.derivative(op.name, { by = by })
      assert.is_nil(text:find "%f[%w_][gr]%f[^%w_]", text)
      assert.is_nil(mismatch(f(unpack(xs)):detach(), reference(op, xs, i), 1e-9), text)
      assert.is_nil(text_error(op, i, text, xs), text)
      local filled, h = nyx.derivative(op.name, with(op, { by = by }))
      assert.is_nil(mismatch(h(unpack(xs)):detach(), reference(op, xs, i), 1e-9), filled)
    end)

    it(title .. " has the right derivative by every input", function()
      case.seed(#op.name + i)
      local xs = leaves(op, N)
      local first, f1 = nyx.derivative(op.name, { by = by })
      for k, name in ipairs(variables) do
        if k <= #op.inputs and not case.constant(op, k) then
          local text, f = nyx.derivative(first, named_in(first, op, { by = name }))
          local expected = reference(op, xs, i, k)
          assert.is_nil(mismatch(f(unpack(xs)):detach(), expected, 1e-9), text)
          if k == i then
            text, f = nyx.derivative(op.name, { by = by, order = 2 })
            assert.is_nil(mismatch(f(unpack(xs)):detach(), expected, 1e-9), text)
          end
          -- The function has a history of its own.
          local y = f1(unpack(xs))
          local g = y.requires_grad and nyx.grad(y:sum(), xs[k]) or nil
          assert.is_nil(mismatch(zeros_unless(g, xs[k]), expected, 1e-9), first)
        end
      end
    end)
  end

  it("there are many", function() assert.is_true(#rows > 70) end)

  it("rows without a gradient is 0 or an error that names the op", function()
    for op in nyx.ops() do
      for i = 1, op.text and #op.inputs or 0 do
        if not op.gradients[i] then
          local ok, text = pcall(nyx.derivative, op.name, { by = variables[i] })
          local float = table.concat(op.dtypes, " "):find("float", 1, true)
          assert.equal(float ~= nil and op.name ~= "zeta", ok, op.name)
          if ok then assert.equal("0", text) else assert.is_truthy(text:find(op.name, 1, true)) end
        end
      end
    end
  end)
end)

describe("the comparison", function()
  it("finds a wrong text", function()
    case.seed(5)
    local op = nyx.op("sigmoid")
    local xs = leaves(op, 10)
    assert.is_nil(text_error(op, 1, "sigmoid(x) * (1 - sigmoid(x))", xs))
    assert.is_truthy(text_error(op, 1, "sigmoid(x) * (1 + sigmoid(x))", xs))
    assert.is_truthy(text_error(op, 1, "sigmoid(x) * (1.0000001 - sigmoid(x))", xs))
  end)

  it("finds a wrong text of any row", function()
    for _, row in ipairs(rows) do
      local xs = leaves(row.op, 10)
      local text = nyx.derivative(row.op.name, { by = row.by })
      assert.is_truthy(text_error(row.op, row.i, "(" .. text .. ") * 1.001 + 0.0001", xs), text)
    end
  end)
end)

describe("the text of", function()
  local function gives(expected, what, options)
    it(what .. " is " .. expected, function()
      assert.equal(expected, (nyx.derivative(what, options)))
    end)
  end

  gives("sigmoid(x) * (1 - sigmoid(x))", "sigmoid")
  gives("1 - tanh(x)^2", "tanh")
  gives("exp(x)", "exp")
  gives("1 / x", "log")
  gives("sigmoid(x) * (x * (1 - sigmoid(x)) + 1)", "silu")
  gives("where(beta * x > threshold, 1, sigmoid(beta * x))", "softplus")
  gives("where(2 * x > 20, 1, sigmoid(2 * x))", "softplus", { beta = 2, threshold = 20 })
  gives("where(x > 0, 1, 0)", "relu")
  gives("where(y == 0, 0, y * x^(y - 1))", "pow")
  gives("where(x == 0 and y >= 0, 0, x^y * log(x))", "pow", { by = "y" })
  gives("-x / y^2", "div", { by = "y" })
  gives("x / hypot(x, y)", "hypot")
  gives("0.5 / sqrt(x)", "sqrt")
  gives("where(x > 0, 1, negative_slope)", "leaky_relu")
  gives("where(x > 0, 1, 0.2)", "leaky_relu", { negative_slope = 0.2 })
  gives("sigmoid(x * (0.07135481627260025 * x^2 + 1.5957691216057308))"
    .. " * (x * (0.21406444881780073 * x^2 + 1.5957691216057308)"
    .. " * (1 - sigmoid(x * (0.07135481627260025 * x^2 + 1.5957691216057308))) + 1)", "gelu_tanh")
  gives("sign(x)", "abs")
  gives("0", "floor")
  gives("0", "sigmoid", { by = "z" })

  gives("sin(x) + x * cos(x)", "x * sin(x) + 3")
  gives("2 * cos(x) - x * sin(x)", "x * sin(x) + 3", { order = 2 })
  gives("exp(x) * (x^2 + 2 * x)", "x^2 * exp(x)")
  gives("9 * x^2 - 4 * x + 1 / 3", "3*x^3 - 2*x^2 + x/3 - 7")
  gives("where(x > y, 2 * x, 0)", "where(x > y, x^2, y)")
  gives("where(x > 0, 2 * relu(x), 0)", "relu(x)^2")
  gives("0.6931471805599453 * 2^x", "2^x")
  gives("0", "z", { by = "y" })
  gives("where(p == 0, 0, p * x^(p - 1))", "x^p")
  gives("3 * x^2", "x^p", { p = 3 })

  local function simpler(expected, what) gives(expected, what, { order = 0 }) end
  simpler("x^2", "x * x")
  simpler("x", "--x * 1 + 0 * exp(x)")
  simpler("7", "1 + 2 * 3")
  simpler("y - x", "-(x - y)")
  simpler("-(x - y)^2", "(x - y) * (y - x)")
  simpler("5 * x", "2 * x + 3 * x")
  simpler("x / (3 * y)", "x / (3 * y)")
  simpler("x^(-y)", "x ^ -y")
  simpler("-x^2", "-(x ^ 2)")
  simpler("x^8", "(x ^ 2) ^ 2 ^ 2")
  simpler("(x^y)^z", "(x^y)^z")
  simpler("x^y^z", "x^(y^z)")
  simpler("(x^2)^0.5", "(x^2)^0.5") -- not x
  simpler("x * sqrt(x)", "sqrt(x)^3")
  simpler("abs(x - y)", "abs(y - x)")
  simpler("not (x > 0 or y > 0) and z > 0", "not (x > 0 or y > 0) and z > 0")
  simpler("x > 0 and (y > 0 or z > 0)", "x > 0 and (y > 0 or z > 0)")
  simpler("y", "where(1 > 2, x, max(y, y))")
  simpler("1e-20 * x + 1.5e30", "1.5E+30 + 1e-20 * x")
  simpler("0.1 * x", "x * 0.1")
end)

describe("an expression", function()
  -- Rows by how many tensors they take; those that are expressions in themselves.
  local by_arity = { {}, {}, {} }
  for op in nyx.ops() do
    local smooth = op.text and op.differentiable and op.gradients[1]
    if smooth then table.insert(by_arity[#op.inputs], op.name) end
  end

  local seed
  local function random(n)
    seed = seed * 48271 % 2147483647
    return seed % n + 1
  end

  -- A text that is Lua as well.
  local function expression(depth)
    local kind = depth == 0 and 1 + random(2) or random(9)
    if kind == 2 then return ("xyz"):sub(random(3)):sub(1, 1) end
    if kind == 3 then return ("%g"):format(random(20) / 4) end
    if kind == 1 then return "(-" .. expression(depth - 1) .. ")" end
    if kind <= 5 then
      local operator = ("+-*/"):sub(random(4)):sub(1, 1)
      return ("(%s %s %s)"):format(expression(depth - 1), operator, expression(depth - 1))
    elseif kind == 6 then
      return ("(%s)^%d"):format(expression(depth - 1), random(3))
    elseif kind == 7 then
      return ("where(gt(%s, %s), %s, %s)"):format(expression(depth - 1), expression(depth - 1),
        expression(depth - 1), expression(depth - 1))
    end
    local arity = kind == 8 and 1 or random(3)
    local parts = {}
    for i = 1, arity do parts[i] = expression(depth - 1) end
    local names = by_arity[arity]
    return ("%s(%s)"):format(names[random(#names)], table.concat(parts, ", "))
  end

  -- Lua's own reading of the text, with tensors for numbers, so that functions take them.
  local function by_lua(text, xs)
    text = text:gsub("%f[%w_%.]%d[%d%.]*", function(number) return "K(" .. number .. ")" end)
    text = text:gsub("%^K(%b())", "^%1")
    local function constant(v) return nyx.full({ #xs[1] }, v, { dtype = "float64" }) end
    local env = setmetatable({ x = xs[1], y = xs[2], z = xs[3], K = constant },
      { __index = nyx })
    local chunk
    if setfenv then -- luacheck: ignore 143
      chunk = setfenv(assert(loadstring("return " .. text)), env) -- luacheck: ignore
    else
      chunk = assert(load("return " .. text, "text", "t", env))
    end
    return chunk()
  end

  -- Whether all is finite, and not so large that digits cancel.
  local function sane(t)
    for _, v in ipairs(numbers(t)) do
      if not (math.abs(v) < 1e3) then return false end -- luacheck: ignore 581
    end
    return true
  end

  it("has the values and gradients of the same in Lua, and simplifies once", function()
    seed = 20240
    local compared = 0
    for n = 1, 1500 do
      local text = expression(3)
      case.seed(n)
      local xs = {}
      for i = 1, 3 do
        xs[i] = case.tensor({ 4 }, "float64", 0.3, 0.9)
        xs[i].requires_grad = true
      end
      local expected = by_lua(text, xs)
      local simple, f = nyx.derivative(text, { order = 0 })
      -- Where a gradient is large, the last digits of what comes before are seen in the value.
      local gradients, good = {}, sane(expected)
      for i = 1, 3 do
        local g = good and expected.requires_grad and nyx.grad(expected:sum(), xs[i],
          { retain_graph = true }) or nil
        gradients[i] = zeros_unless(g, xs[i])
        good = good and sane(gradients[i])
      end
      if good then
        assert.equal(simple, (nyx.derivative(simple, { order = 0 })))
        local y = f(unpack(xs)):detach() + nyx.zeros(4, { dtype = "float64" })
        assert.is_nil(mismatch(y, expected, 1e-7), text .. " as " .. simple)
        for i, by in ipairs(variables) do
          local derived, d = nyx.derivative(text, { by = by })
          local got = d(unpack(xs)):detach() + nyx.zeros(4, { dtype = "float64" })
          assert.is_nil(mismatch(got, gradients[i], 1e-7), text .. " by " .. by .. ": " .. derived)
          compared = compared + 1
        end
      end
    end
    assert.is_true(compared > 2000, compared)
  end)

  it("is the same text every time", function()
    for _, row in ipairs(rows) do
      local options = { by = row.by, order = 3 }
      assert.equal(nyx.derivative(row.op.name, options), (nyx.derivative(row.op.name, options)))
    end
  end)
end)

describe("the function of a derivative", function()
  it("takes numbers, and tensors of any float dtype", function()
    local _, f = nyx.derivative("x^2 * y")
    assert.equal(12, f(2, 3))
    assert.equal("float32", f(nyx.ones(2), 3).dtype)
    assert.same({ 6, 6 }, f(nyx.ones(2), 3):totable())
    assert.same({ 6, 6 }, f(1, nyx.full({ 2 }, 3)):totable())
    assert.equal("float16", f(nyx.ones(2, { dtype = "float16" }), 3).dtype)
    assert.equal("float32", f(nyx.ones(2, { dtype = "int64" }), 3).dtype)
  end)

  it("keeps float64 where only numbers are chosen from", function()
    local _, f = nyx.derivative("leaky_relu", { negative_slope = 0.1 })
    local y = f(nyx.tensor({ -1, 1 }, { dtype = "float64" }))
    assert.equal("float64", y.dtype)
    assert.same({ 0.1, 1 }, y:totable())
    _, f = nyx.derivative("x * y")
    assert.equal(5, f(1, 5))
  end)

  it("is of the shape of the argument where it is constant", function()
    local _, f = nyx.derivative("3 * x + 1")
    assert.same({ { 3, 3 } }, f(nyx.zeros(1, 2)):totable())
    assert.equal(3, f(7))
  end)
end)

describe("bad input to derivative", function()
  -- As in errors_spec.lua: the message has the texts and stands at the caller's line.
  local function fails(fn, ...)
    local ok, message = pcall(fn)
    assert.is_false(ok)
    for _, text in ipairs { ... } do
      assert.is_truthy(message:find(text, 1, true), ("%q lacks %q"):format(message, text))
    end
    local info = debug.getinfo(fn, "S")
    local place = ("%s:%d:"):format(info.short_src, info.linedefined + 1)
    assert.is_truthy(message:find(place, 1, true), ("%q is not at %s"):format(message, place))
  end

  local function refused(what, ...)
    fails(function()
      local _ = nyx.derivative(what)
    end, "derivative: ", ...)
  end

  it("says where it stopped reading", function()
    refused("x +", "cannot read 'x +', position 4: the text ends", "expected a number")
    refused("x * * 2", "position 5: got '*'")
    refused("2x", "position 2: got 'x', expected an operator")
    refused("(x", "position 3: the text ends, expected ')'")
    refused("sin(x", "expected ')' or ','")
    refused("x < y < z", "position 7: got '<'")
    refused("x ? 2", "position 3: got '?'")
    refused("", "position 1: the text ends")
    refused("x or and", "position 6: got 'and'")
    refused(("x + "):rep(100) .. ")", "position 401: got ')'", "..")
    refused(("("):rep(1000), "nested more than")
    refused(("-"):rep(1000) .. "x", "nested more than")
  end)

  it("names what it does not know", function()
    refused("sigmoyd", "no op is called 'sigmoyd'", "help() lists")
    refused("x * sigmoyd(x)", "position 5: no op is called 'sigmoyd'")
    refused("matmul", "'matmul' (structural) is no row", "nyx.grad")
    refused("sum(x)", "'sum' (reduction) is no row", "nyx.grad")
    refused("x + w", "unknown name 'w', expected x, y, z")
    refused("sin(x, y, z)", "'sin' has 3 arguments, expected sin(x)")
    refused("elu()", "'elu' has 0 arguments, expected elu(x, [alpha])")
    refused("elu(x, y)", "attribute 'alpha' of 'elu' is 'y'", "numbers")
    refused("bitwise_and", "'bitwise_and' has no derivative by its input 'x'", "floats")
    refused(3, "'what' is number 3, expected a string")
  end)

  it("names wrong options", function()
    fails(function()
      local _ = nyx.derivative("elu", { beta = 2 })
    end, "unknown option 'beta'; known: by order alpha")
    fails(function()
      local _ = nyx.derivative("elu", { alpha = "big" })
    end, "'alpha' is string 'big', expected a number")
    fails(function()
      local _ = nyx.derivative("x + p", { q = 2 })
    end, "unknown option 'q'; known: by order p")
    fails(function()
      local _ = nyx.derivative("elu", { by = "w" })
    end, "'by' is string 'w', expected one of: x y z")
    fails(function()
      local _ = nyx.derivative("elu", { order = 1.5 })
    end, "'order' is number 1.5, expected an integer")
    fails(function()
      local _ = nyx.derivative("elu", "x")
    end, "the options are string 'x', expected a table")
  end)

  it("names missing arguments of the function", function()
    local _, f = nyx.derivative("x * x * y")
    fails(function()
      local _ = f(1)
    end, "the function of '2 * x * y' got no 'y'", "x, y, z")
    fails(function()
      local _ = f("1", 2)
    end, "argument 'x'", "string '1'", "tensor or a number")
    local _, g = nyx.derivative("x * p")
    fails(function()
      local _ = g(1)
    end, "got no 'p'", "{p = ...}")
  end)
end)
