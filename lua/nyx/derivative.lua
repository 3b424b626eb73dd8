-- nyx.derivative: derivatives of elementwise expressions as text and as functions. What an
-- op's derivative is, its row says (kernels/elementwise.def); here are the chain rule and
-- the evaluation. Read next: derivative/parse.lua, derivative/tree.lua (simplification),
-- derivative/print.lua.
local nyx = require "nyx"
local check = require "nyx.check"
local parse = require "nyx.derivative.parse"
local tree = require "nyx.derivative.tree"

local M = {}
local unpack = unpack or table.unpack

local variables = { "x", "y", "z" }
local slots = { "p", "q" } -- the names of attributes in the texts of rows

-- ---------------------------------------------------------------- rows

-- Constant in pieces: the derivative is 0, though no gradient is defined.
local function is_step(name)
  return name == "floor_divide" or name == "nextafter" or tree.is_mask(name)
end

-- Not smooth: at a kink only the row's own gradient text knows which value to take.
local kinked = { where = true, minimum = true, maximum = true, abs = true, sign = true,
  floor = true, ceil = true, round = true, trunc = true, fmod = true, remainder = true }

local arithmetic = { add = true, sub = true, mul = true, div = true, neg = true }

local row_names = { g = true, x = true, y = true, z = true, r = true, p = true, q = true }

-- What a row says of an op: `value` and `gradients`, syntax trees; `plain`, whether the
-- value is arithmetic only and is written out; `smooth`, whether it is made of other ops
-- without kinks.
---@class nyx.Row
---@field op table
---@field value nyx.Syntax
---@field gradients (nyx.Syntax|false)[]
---@field plain boolean
---@field smooth boolean
---@field rules nyx.Syntax[] derivatives by each input, made when first needed

local rows = {}

local function survey(row, syntax)
  if syntax.op and not arithmetic[syntax.op] then
    row.plain = false
    if kinked[syntax.op] or is_step(syntax.op) or syntax.op == row.op.name then
      row.smooth = false
    end
  end
  for _, inner in ipairs(syntax) do survey(row, inner) end
end

---@return nyx.Row
local function row_of(name)
  local row = rows[name]
  if row then return row end
  local op = nyx.op(name)
  row = { op = op, value = parse(op.text, row_names, "x"), gradients = {}, rules = {},
    plain = true, smooth = true }
  for i, text in ipairs(op.gradients) do
    row.gradients[i] = text and parse(text, row_names, "x")
  end
  survey(row, row.value)
  rows[name] = row
  return row
end

-- What an argument list gives the names in a row's text.
local function environment(row, args)
  local env = { g = tree.one }
  for i = 1, #row.op.inputs do env[variables[i]] = args[i] end
  for i = 1, #row.op.attrs do env[slots[i]] = args[#row.op.inputs + i] end
  return env
end

-- ---------------------------------------------------------------- syntax to trees

local build

local chains = { add = { 1, "add", "sub" }, sub = { -1, "add", "sub" },
  mul = { 1, "mul", "div" }, div = { -1, "mul", "div" } }

-- a + b - c + ... at once, or a * b / c * ...: what is common is seen in all of it.
local function build_chain(syntax, env)
  local last, parts = chains[syntax.op], {}
  local is_sum = last[2] == "add"
  local function add(sign, inner)
    local node = build(inner, env)
    table.insert(parts, 1, is_sum and { sign, node } or { node, sign })
  end
  while syntax.op == last[2] or syntax.op == last[3] do
    add(chains[syntax.op][1], syntax[2])
    syntax = syntax[1]
  end
  add(1, syntax)
  return is_sum and tree.sum(parts) or tree.product(parts)
end

-- An op of trees. Attributes that are left out have their defaults.
local function apply(name, args)
  local row = row_of(name)
  for i, attr in ipairs(row.op.attrs) do
    local k = #row.op.inputs + i
    args[k] = args[k] or tree.number(attr.preset)
  end
  if row.plain then return build(row.value, environment(row, args)) end
  return tree.call(name, args)
end

local function occurs(node, names)
  if node.kind == "sym" then return names[node.name] == true end
  for _, term in ipairs(node.terms or {}) do if occurs(term[2], names) then return true end end
  for _, factor in ipairs(node.factors or {}) do
    if occurs(factor[1], names) then return true end
  end
  for _, arg in ipairs(node.args or {}) do if occurs(arg, names) then return true end end
  return false
end

-- The tree of a syntax tree, with the nodes that `env` gives for its names.
function build(syntax, env)
  if syntax.number then return tree.number(syntax.number) end
  if syntax.name then return env[syntax.name] end
  if chains[syntax.op] then return build_chain(syntax, env) end
  if syntax.op == "neg" then return tree.sum { { -1, build(syntax[1], env) } } end
  local args = {}
  for i, inner in ipairs(syntax) do args[i] = build(inner, env) end
  local op = row_of(syntax.op).op
  for i = #op.inputs + 1, #args do
    if occurs(args[i], { x = true, y = true, z = true }) then
      check.fail("derivative: attribute '%s' of '%s' is '%s', expected no variable; attributes "
        .. "are numbers", op.attrs[i - #op.inputs].name, op.name, args[i].text)
    end
  end
  return apply(syntax.op, args)
end

-- ---------------------------------------------------------------- the chain rule

local derive

-- An op with the names of its row's text as arguments.
local function sample(row)
  local args = {}
  for i = 1, #row.op.inputs do args[i] = tree.symbol(variables[i], false) end
  for i = 1, #row.op.attrs do args[#args + 1] = tree.symbol(slots[i], true) end
  return apply(row.op.name, args), environment(row, args)
end

-- The derivative of a row's value by input i where the row has no gradient text: 0 if
-- the input only decides between pieces.
local function without_gradient(row, i)
  if is_step(row.op.name) then return { number = 0 } end
  if row.smooth then
    local _, env = sample(row)
    if tree.is(derive(build(row.value, env), variables[i], {}), 0) then return { number = 0 } end
  end
  check.fail("derivative: '%s' has no derivative by its input '%s' and works on %s; expected "
    .. "an op of floats and an input it has a gradient of", row.op.name, row.op.inputs[i].name,
    table.concat(row.op.dtypes, " "))
end

-- The derivative of a row by input i as a syntax tree over x y z p q r. It is the row's
-- gradient text, or, where the value is made of smooth ops and that comes out shorter, the
-- derivative of its value.
local function rule(row, i)
  if row.rules[i] then return row.rules[i] end
  local chosen = row.gradients[i] or without_gradient(row, i)
  if row.smooth and not row.plain then
    local call, env = sample(row)
    env.r = call
    local direct = build(chosen, env)
    local derived = derive(build(row.value, env), variables[i], {})
    if #derived.text < #direct.text then chosen = parse(derived.text, row_names, "x") end
  end
  row.rules[i] = chosen
  return chosen
end

local function derive_sum(node, by, memo)
  local parts = {}
  for i, term in ipairs(node.terms) do parts[i] = { term[1], derive(term[2], by, memo) } end
  return tree.sum(parts)
end

local function derive_product(node, by, memo)
  local parts = {}
  for _, factor in ipairs(node.factors) do
    local base, exponent = factor[1], factor[2]
    local inner = derive(base, by, memo)
    if not tree.is(inner, 0) then
      parts[#parts + 1] = { exponent, tree.product { { node, 1 }, { base, -1 }, { inner, 1 } } }
    end
  end
  return tree.sum(parts)
end

local function derive_call(node, by, memo)
  local args = node.args
  if node.name == "where" then
    return tree.where(args[1], derive(args[2], by, memo), derive(args[3], by, memo))
  end
  local row = row_of(node.name)
  local env = environment(row, args)
  env.r = node
  local parts = {}
  for i = 1, #row.op.inputs do
    local inner = derive(args[i], by, memo)
    if not tree.is(inner, 0) then
      local outer = build(rule(row, i), env)
      parts[#parts + 1] = { 1, tree.product { { outer, 1 }, { inner, 1 } } }
    end
  end
  return tree.sum(parts)
end

local derivers = { sum = derive_sum, prod = derive_product, call = derive_call,
  num = function() return tree.zero end,
  sym = function(node, by) return node.name == by and tree.one or tree.zero end }

-- The derivative of a tree by a variable. Equal parts are differentiated once.
function derive(node, by, memo)
  local result = memo[node.text]
  if not result then
    result = derivers[node.kind](node, by, memo)
    memo[node.text] = result
  end
  return result
end

-- ---------------------------------------------------------------- evaluation

local evaluate

-- The value of a part that is to be calculated with; masks become numbers.
local function arithmetic_value(node, env)
  local value = evaluate(node, env)
  if type(value) ~= "number" and value.dtype == "bool" then value = value:to(env.dtype) end
  return value
end

local function tensor_of(value, env)
  if type(value) ~= "number" then return value end
  return nyx.tensor(value, { dtype = env.dtype, device = env.device })
end

local function raised(value, exponent)
  if exponent == 1 then return value end
  if exponent == 2 then return value * value end
  return value ^ exponent
end

local function evaluate_sum(node, env)
  local total = node.const ~= 0 and node.const or nil
  for _, term in ipairs(node.terms) do
    local coef, value = term[1], arithmetic_value(term[2], env)
    if total and coef == -1 then
      total = total - value
    else
      if coef ~= 1 then value = value * coef end
      total = total and total + value or value
    end
  end
  return total
end

local function evaluate_product(node, env)
  local above, below = node.coef ~= 1 and node.coef or nil, nil
  for _, factor in ipairs(node.factors) do
    local value = raised(arithmetic_value(factor[1], env), math.abs(factor[2]))
    if factor[2] > 0 then
      above = above and above * value or value
    else
      below = below and below * value or value
    end
  end
  if not below then return above end
  return (above or 1) / below
end

local function evaluate_call(node, env)
  local get = tree.is_mask(node.name) and evaluate or arithmetic_value
  local args = {}
  for i, arg in ipairs(node.args) do args[i] = get(arg, env) end
  if node.name == "where" then
    args[1] = evaluate(node.args[1], env)
    -- Two numbers would make a tensor of the default dtype.
    if type(args[3]) == "number" then args[2] = tensor_of(args[2], env) end
  end
  args[1] = tensor_of(args[1], env)
  return nyx[node.name](unpack(args))
end

local evaluators = { sum = evaluate_sum, prod = evaluate_product, call = evaluate_call,
  num = function(node) return node.value end,
  sym = function(node, env)
    local value = env.values[node.name]
    if value == nil then
      check.fail("derivative: the function of '%s' got no '%s', expected %s", env.text, node.name,
        node.attribute and ("a number for it among the options, {%s = ...}"):format(node.name)
        or "a tensor or a number as argument; the arguments are x, y, z")
    end
    return value
  end }

function evaluate(node, env)
  local value = env.known[node.text]
  if value == nil then
    value = evaluators[node.kind](node, env)
    env.known[node.text] = value
  end
  return value
end

local floats = { float64 = true, float32 = true, float16 = true, bfloat16 = true }

-- The arguments by name, as floats, and what numbers among them become: the dtype and
-- device of the first tensor.
local function arguments(env, list)
  for i, name in ipairs(variables) do
    local value = list[i]
    if check.is_tensor(value) then
      if not floats[value.dtype] then value = value:to(nyx.get_default_dtype()) end
      env.dtype, env.device = env.dtype or value.dtype, env.device or value.device
      env.like = env.like or value
    elseif value ~= nil and type(value) ~= "number" then
      check.fail("derivative: argument '%s' of the function of '%s' is %s, expected a tensor or "
        .. "a number", name, env.text, check.describe(value))
    end
    env.values[name] = value
  end
  if env.like then return end
  env.dtype = "float64"
  for _, name in ipairs(variables) do
    if env.values[name] then env.values[name] = tensor_of(env.values[name], env) end
  end
end

-- The function of x, y, z that a tree describes: of tensors a tensor, of numbers a number.
local function function_of(node, presets)
  return function(...)
    local env = { known = {}, values = {}, text = node.text }
    for name, value in pairs(presets) do env.values[name] = value end
    arguments(env, { ... })
    local value = arithmetic_value(node, env)
    if env.like then
      return type(value) == "number" and nyx.full_like(env.like:detach(), value) or value
    end
    return type(value) == "number" and value or value:item()
  end
end

-- ---------------------------------------------------------------- nyx.derivative

-- All names that may stand in an expression.
local expression_names
local function names_of_expressions()
  if expression_names then return expression_names end
  local names = { x = true, y = true, z = true, p = true, q = true }
  for op in nyx.ops() do
    if op.text then for _, attr in ipairs(op.attrs) do names[attr.name] = true end end
  end
  expression_names = names
  return names
end

-- The options, and the values of attributes among them.
local function read_options(options, attributes)
  table.sort(attributes)
  options = check.options("derivative", options, table.concat({ "by", "order",
    unpack(attributes) }, " "))
  local values = {}
  for _, name in ipairs(attributes) do
    if options[name] ~= nil then values[name] = check.number("derivative", name, options[name]) end
  end
  local by = check.choice("derivative", "by", options.by == nil and "x" or options.by, "x y z")
  local order = check.integer("derivative", "order", options.order == nil and 1 or options.order,
    0)
  return by, order, values
end

local function symbols(names, values)
  local env = {}
  for _, name in ipairs(names) do
    env[name] = values[name] and tree.number(values[name]) or tree.symbol(name, true)
  end
  for _, name in ipairs(variables) do env[name] = tree.symbol(name, false) end
  return env
end

-- An op by name: its call with x, y, z and its attributes.
local function of_op(op, options)
  local names, presets, args = {}, {}, {}
  for i, attr in ipairs(op.attrs) do
    names[i], presets[attr.name] = attr.name, attr.preset
  end
  local by, order, values = read_options(options, { unpack(names) })
  local env = symbols(names, values)
  for i = 1, #op.inputs do args[i] = env[variables[i]] end
  for _, name in ipairs(names) do args[#args + 1] = env[name] end
  return apply(op.name, args), by, order, presets
end

local function of_expression(text, options)
  local syntax, used = parse(text, names_of_expressions(),
    "x, y, z, p, q, an attribute of an op or a function")
  local names = {}
  for name in pairs(used) do
    if name ~= "x" and name ~= "y" and name ~= "z" then names[#names + 1] = name end
  end
  local by, order, values = read_options(options, names)
  return build(syntax, symbols(names, values)), by, order, {}
end

--- The derivative of an elementwise op or expression: its text, simplified, and a function
--- of x, y, z that evaluates it. "sigmoid" gives `sigmoid(x) * (1 - sigmoid(x))`. An
--- expression is written as in Lua over x, y, z, numbers, elementwise ops, and names of
--- attributes. Options: by, the variable ("x"); order, how often (1; 0 only simplifies);
--- attributes by name, to be put in as numbers. Where a function has a kink, the value is
--- the one that backward gives. Simplification may define what was not: x / x is 1.
---@param what string "sigmoid" or "x * sin(x) + 3"
---@param options? {by: string, order: integer, [string]: number}
---@return string text
---@return fun(x: nyx.Tensor|number, y?: nyx.Tensor|number, z?: nyx.Tensor|number) evaluate
function M.derivative(what, options)
  check.type("derivative", "what", what, "string")
  local name = what:match("^%s*([%a_][%w_]*)%s*$")
  local op = name and nyx.op(name)
  local node, by, order, presets
  if op and op.text then
    node, by, order, presets = of_op(op, options)
  elseif op then
    check.fail("derivative: '%s' (%s) is no row of elementwise ops, expected one or an "
      .. "expression; its gradient is had from nyx.grad", name, op.kind)
  elseif name and not names_of_expressions()[name] and name ~= "inf" then
    check.fail("derivative: no op is called '%s', expected an elementwise op or an expression "
      .. "such as \"x * sin(x)\"; help() lists the ops", name)
  else
    node, by, order, presets = of_expression(what, options)
  end
  for _ = 1, order do
    node = derive(node, by, {})
    if tree.is(node, 0) then break end
  end
  return node.text, function_of(node, presets)
end

return M
