-- Expressions as trees in a normal form: every node is made by one of the functions here,
-- which simplify while they build, so a tree is never larger than it needs to be and equal
-- trees have equal texts. Read next: print.lua (texts), lua/nyx/derivative.lua.
--
--   num   value
--   sym   name, attribute
--   sum   const + terms[i][1] * terms[i][2], numbers times nodes that are no numbers
--   prod  coef * factors[i][1] ^ factors[i][2], nodes to the power of numbers
--   call  name(args): an op; comparisons, logic, `where` and `pow` with an exponent that is
--         no number are calls too. Attributes follow the inputs
--
-- Values do not change where the original is defined in the reals. Where it is not, the
-- simpler form may be: x / x is 1 also at 0, sqrt(x)^2 is x below 0 too, 0 * y is 0.
-- Products are never multiplied out; factors common to all terms of a sum, other than plain
-- variables, are taken out.
local nyx = require "nyx"
local print_of = require "nyx.derivative.print"

local M = {}
local unpack = unpack or table.unpack

local function finite(v) return v == v and v ~= math.huge and v ~= -math.huge end
local function is_number(node) return node.kind == "num" end
local function is_whole(v) return v % 1 == 0 end

-- The text of a node is made with it: it is what equality and the order of parts rest on.
local function finish(node)
  node.text, node.level = print_of(node)
  return node
end

---@class nyx.Expression
---@field kind string
---@field text string
---@field level integer how tightly the text binds, see print.lua

--- A number.
---@param value number
---@return nyx.Expression
function M.number(value)
  return finish { kind = "num", value = value + 0.0 } -- no -0
end

local zero, one = M.number(0), M.number(1)
M.zero, M.one = zero, one

--- A variable or an attribute.
---@param name string
---@param attribute boolean
---@return nyx.Expression
function M.symbol(name, attribute)
  return finish { kind = "sym", name = name, attribute = attribute, degree = 1,
    rank = attribute and 1 or 2 }
end

--- Whether a node is the number `value`.
---@param node nyx.Expression
---@param value number
---@return boolean
function M.is(node, value) return node.kind == "num" and node.value == value end

-- ---------------------------------------------------------------- order

-- In a product: numbers, attributes, variables, calls, sums; short before long.
local function factor_before(a, b)
  a, b = a[1], b[1]
  local ra, rb = a.rank or 3, b.rank or 3
  if ra ~= rb then return ra < rb end
  if #a.text ~= #b.text then return #a.text < #b.text end
  return a.text < b.text
end

-- In a sum: powers of variables by falling degree, then the rest, short before long.
local function term_before(a, b)
  a, b = a[2], b[2]
  local da, db = a.degree or -1, b.degree or -1
  if da ~= db then return da > db end
  if da < 0 and #a.text ~= #b.text then return #a.text < #b.text end
  return a.text < b.text
end

-- Sums whose leading number is negative occur as -1 times the opposite sum in products, so
-- that x - y and y - x meet.
local function is_negative(sum)
  if sum.const ~= 0 then return sum.const < 0 end
  return sum.terms[1][1] < 0
end

local function new_sum(const, terms)
  table.sort(terms, term_before)
  return finish { kind = "sum", const = const + 0.0, terms = terms, rank = 4 }
end

local function is_where(node) return node.kind == "call" and node.name == "where" end

-- Whether a product has a `where` among its factors, which takes its number.
local function chooses(node)
  if node.kind ~= "prod" then return is_where(node) end
  for _, factor in ipairs(node.factors) do
    if is_where(factor[1]) and factor[2] == 1 then return true end
  end
  return false
end

local function negated(sum)
  local terms, open = {}, false
  for i, term in ipairs(sum.terms) do
    terms[i] = { -term[1], term[2] }
    open = open or chooses(term[2])
  end
  if not open then return new_sum(-sum.const, terms) end
  terms[#terms + 1] = { -sum.const, one }
  return M.sum(terms)
end

local function new_product(coef, factors)
  if coef == 0 then return zero end
  if #factors == 0 then return M.number(coef) end
  table.sort(factors, factor_before)
  local base, exponent = factors[1][1], factors[1][2]
  if #factors == 1 and exponent == 1 then
    if coef == 1 then return base end
    if coef == -1 and base.kind == "sum" then return negated(base) end
  end
  local degree = 0
  for _, factor in ipairs(factors) do
    local single = factor[1].kind == "sym" and is_whole(factor[2]) and factor[2] > 0
    degree = degree and single and degree + factor[2] or nil
  end
  return finish { kind = "prod", coef = coef, factors = factors, degree = degree }
end

-- A node as a number times a node without one.
local function split(node)
  if node.kind ~= "prod" or node.coef == 1 then return 1, node end
  return node.coef, new_product(1, node.factors)
end

-- ---------------------------------------------------------------- sums

-- A list of parts by their texts, in the order in which they came.
local function put(into, node, amount)
  local slot = into[node.text]
  if not slot then
    slot = { node, 0 }
    into[node.text] = slot
    into[#into + 1] = slot
  end
  slot[2] = slot[2] + amount
end

local function collect(into, coef, node)
  if is_number(node) and finite(node.value) then
    into.const = into.const + coef * node.value
    return
  end
  local inner, single = split(node)
  coef = coef * inner
  if single.kind == "sum" and math.abs(coef) == 1 then
    into.const = into.const + coef * single.const
    for _, term in ipairs(single.terms) do collect(into, coef * term[1], term[2]) end
  elseif coef ~= 1 and chooses(single) then
    collect(into, 1, M.product { { single, 1 }, { M.number(coef), 1 } })
  else
    put(into, single, coef)
  end
end

-- where(c, a, b) + where(c, d, e) is where(c, a + d, b + e).
local function join_wheres(into)
  local first, joined = {}, false
  for _, slot in ipairs(into) do
    local node, amount = slot[1], slot[2]
    if is_where(node) and amount ~= 0 then
      local condition = node.args[1]
      local before = first[condition.text]
      if before then
        local other = before[1]
        before[1] = M.where(condition,
          M.sum { { before[2], other.args[2] }, { amount, node.args[2] } },
          M.sum { { before[2], other.args[3] }, { amount, node.args[3] } })
        before[2], slot[2], joined = 1, 0, true
        if not is_where(before[1]) then first[condition.text] = nil end
      else
        first[condition.text] = slot
      end
    end
  end
  return joined
end

-- The exponent with which all of the terms have a factor; nil when it is not common.
local function common_exponent(terms, factor)
  local least
  for _, term in ipairs(terms) do
    local exponent
    local node = term[2]
    for _, other in ipairs(node.kind == "prod" and node.factors or { { node, 1 } }) do
      if other[1].text == factor[1].text then exponent = other[2] end
    end
    if not exponent or (least and exponent * least < 0) then return nil end
    if not least or math.abs(exponent) < math.abs(least) then least = exponent end
  end
  return least
end

-- f * a + f * b as f * (a + b); nil when the terms have nothing in common.
local function factored(terms)
  local found, rest = {}, {}
  local first = terms[1][2]
  for _, factor in ipairs(first.kind == "prod" and first.factors or { { first, 1 } }) do
    local exponent = common_exponent(terms, factor)
    if exponent and (factor[1].kind ~= "sym" or exponent < 0) then
      found[#found + 1] = { factor[1], exponent }
    end
  end
  if #found == 0 then return nil end
  for i, term in ipairs(terms) do
    local parts = { { term[2], 1 } }
    for _, factor in ipairs(found) do parts[#parts + 1] = { factor[1], -factor[2] } end
    rest[i] = { term[1], M.product(parts) }
  end
  found[#found + 1] = { M.sum(rest), 1 }
  return M.product(found)
end

--- A sum of numbers times nodes.
---@param parts table[] {number, node}
---@return nyx.Expression
function M.sum(parts)
  local into = { const = 0 }
  for _, part in ipairs(parts) do collect(into, part[1], part[2]) end
  local again = join_wheres(into)
  local terms = {}
  for _, slot in ipairs(into) do
    local node, coef = slot[1], slot[2]
    if coef ~= 0 then
      terms[#terms + 1] = { coef, node }
      again = again or node.kind == "sum" and math.abs(coef) == 1 -- 2 * s - s: s opens up
    end
  end
  if again then
    terms[#terms + 1] = { into.const, one }
    return M.sum(terms)
  end
  if #terms == 0 then return M.number(into.const) end
  if into.const ~= 0 then return new_sum(into.const, terms) end
  if #terms == 1 then return M.product { { M.number(terms[1][1]), 1 }, { terms[1][2], 1 } } end
  return factored(terms) or new_sum(0, terms)
end

-- ---------------------------------------------------------------- products

local function usable(v) return finite(v) and v ~= 0 end

-- Multiplies a number in, above or below the line: 2 * x / 3 is 2 / 3 * x, rounded once.
-- What would overflow, vanish or not exist stays a factor.
local function multiply_number(into, node, exponent)
  local side = exponent > 0 and "coef" or "below"
  local product = into[side] * node.value ^ math.abs(exponent)
  if usable(product) or product == 0 and node.value == 0 and exponent > 0 then
    into[side] = product
  else
    put(into, node, exponent)
  end
end

-- Divides what is above the line by what is below.
local function divide_numbers(into)
  local quotient = into.coef / into.below
  if usable(quotient) then
    into.coef = quotient
  else
    put(into, M.number(into.coef), 1)
    put(into, M.number(into.below), -1)
    into.coef = 1
  end
  into.below = 1
end

local multiply

-- sqrt(x)^3 is x * sqrt(x), abs(x)^2 is x^2.
local function multiply_root(into, node, exponent)
  local odd = math.fmod(exponent, 2)
  local even = exponent - odd
  multiply(into, node.args[1], node.name == "sqrt" and even / 2 or even)
  if odd ~= 0 then put(into, node, odd) end
end

-- Whether a power of a node is a product of other factors.
local function dissolves(node, exponent)
  if not is_whole(exponent) then return false end
  if node.kind == "call" and (node.name == "sqrt" or node.name == "abs") then
    return math.abs(exponent) > 1
  end
  return node.kind == "prod" or node.kind == "sum" and is_negative(node)
end

function multiply(into, node, exponent)
  if is_number(node) then return multiply_number(into, node, exponent) end
  if not dissolves(node, exponent) then return put(into, node, exponent) end
  if node.kind == "call" then return multiply_root(into, node, exponent) end
  if node.kind == "sum" then
    if exponent % 2 == 1 then into.coef = -into.coef end
    return put(into, negated(node), exponent)
  end
  if node.coef ~= 1 then multiply_number(into, M.number(node.coef), exponent) end
  for _, factor in ipairs(node.factors) do multiply(into, factor[1], factor[2] * exponent) end
end

-- What dissolves only since exponents were added up, as sqrt(x) * sqrt(x), is multiplied in
-- again.
local function dissolve(into)
  for _, slot in ipairs(into) do
    local base, exponent = slot[1], slot[2]
    if exponent ~= 0 and dissolves(base, exponent) then
      slot[2] = 0
      multiply(into, base, exponent)
      return dissolve(into)
    end
  end
end

-- where(c, a, 0) * b is where(c, a * b, 0), and a number goes into both branches.
local function into_where(coef, factors)
  for i, factor in ipairs(factors) do
    local node = factor[1]
    if is_where(node) and factor[2] == 1 then
      local a, b = node.args[2], node.args[3]
      local all = M.is(a, 0) or M.is(b, 0)
      local inside, outside = { { M.number(coef), 1 } }, {}
      for k, other in ipairs(factors) do
        if k ~= i then table.insert(all and inside or outside, other) end
      end
      if coef ~= 1 or #inside > 1 then
        inside = M.product(inside)
        outside[#outside + 1] = { M.where(node.args[1], M.product { { a, 1 }, { inside, 1 } },
          M.product { { b, 1 }, { inside, 1 } }), 1 }
        return M.product(outside)
      end
    end
  end
end

--- A product of nodes to the power of numbers.
---@param parts table[] {node, exponent}
---@return nyx.Expression
function M.product(parts)
  local into = { coef = 1, below = 1 }
  for _, part in ipairs(parts) do multiply(into, part[1], part[2]) end
  if into.coef == 0 then return zero end
  dissolve(into)
  divide_numbers(into)
  local factors = {}
  for _, slot in ipairs(into) do
    if slot[2] ~= 0 then factors[#factors + 1] = slot end
  end
  return into_where(into.coef, factors) or new_product(into.coef, factors)
end

--- A node to the power of another.
---@param base nyx.Expression
---@param exponent nyx.Expression
---@return nyx.Expression
function M.power(base, exponent)
  if is_number(exponent) and finite(exponent.value) then
    return M.product { { base, exponent.value } }
  end
  if M.is(base, 1) then return one end
  return finish { kind = "call", name = "pow", args = { base, exponent } }
end

-- ---------------------------------------------------------------- calls

local function truth(on) return on and one or zero end

-- Comparisons: whether they hold between numbers, and between a node and itself.
local compare = {
  eq = { function(a, b) return a == b end, true },
  ne = { function(a, b) return a ~= b end, false },
  lt = { function(a, b) return a < b end, false },
  le = { function(a, b) return a <= b end, true },
  gt = { function(a, b) return a > b end, false },
  ge = { function(a, b) return a >= b end, true },
}

local masks = { logical_and = true, logical_or = true, logical_xor = true, logical_not = true,
  isnan = true, isinf = true, isfinite = true, signbit = true, near = true }
for name in pairs(compare) do masks[name] = true end

--- Whether an op gives true and false, and so is constant in pieces.
---@param name string
---@return boolean
function M.is_mask(name) return masks[name] == true end

local function infinite(node) return is_number(node) and not finite(node.value) end

local function compared(name, a, b)
  local rule = compare[name]
  if is_number(a) and is_number(b) then return truth(rule[1](a.value, b.value)) end
  if a.text == b.text then return truth(rule[2]) end
  -- Any real number lies between the infinities.
  if infinite(b) then return truth(rule[1](0, b.value)) end
  if infinite(a) then return truth(rule[1](a.value, 0)) end
  -- x - 1 > 0 as x > 1; with other numbers it could be rounded.
  if is_number(b) and a.kind == "sum" and a.const ~= 0 and is_whole(a.const)
    and is_whole(b.value) then
    return M.call(name, { M.sum { { 1, a }, { -a.const, one } }, M.number(b.value - a.const) })
  end
  -- The rows of activations say so of their result.
  if name == "gt" and M.is(b, 0) and a.kind == "call" and a.name == "relu" then
    return M.call(name, { a.args[1], b })
  end
end

-- c and true, c or false and the like, for a condition c.
local function joined(name, a, b)
  if is_number(b) then a, b = b, a end
  local condition = b.kind == "call" and masks[b.name]
  if is_number(a) and is_number(b) then
    local p, q = a.value ~= 0, b.value ~= 0
    if name == "logical_and" then return truth(p and q) end
    if name == "logical_or" then return truth(p or q) end
    return truth(p ~= q)
  end
  if is_number(a) and name ~= "logical_xor" then
    local decides = name == "logical_or"
    if (a.value ~= 0) == decides then return truth(decides) end
    return condition and b or nil
  end
  return name ~= "logical_xor" and a.text == b.text and condition and a or nil
end

-- min and max of a node with itself or infinity.
local function extreme(sign, a, b)
  if a.text == b.text then return a end
  if infinite(a) then a, b = b, a end
  if infinite(b) and not infinite(a) then return b.value * sign < 0 and a or b end
end

-- A function of a number times a node, without the number's sign or without the number.
local function scaled(name, node)
  if node.kind == "sum" and is_negative(node) then
    local inside = M.call(name, { negated(node) })
    return name == "sign" and M.sum { { -1, inside } } or inside
  end
  local coef, rest = split(node)
  if coef == 1 or is_number(rest) then return nil end
  if name == "sign" then return M.sum { { coef < 0 and -1 or 1, M.call(name, { rest }) } } end
  return M.sum { { math.abs(coef), M.call(name, { rest }) } }
end

local rules = {
  where = function(args) return M.where(args[1], args[2], args[3]) end,
  pow = function(args) return M.power(args[1], args[2]) end,
  maximum = function(args) return extreme(1, args[1], args[2]) end,
  minimum = function(args) return extreme(-1, args[1], args[2]) end,
  abs = function(args)
    local inner = args[1]
    return inner.kind == "call" and inner.name == "abs" and inner or scaled("abs", inner)
  end,
  sign = function(args) return scaled("sign", args[1]) end,
  logical_not = function(args)
    local inner = args[1]
    if is_number(inner) then return truth(inner.value == 0) end
    if inner.kind ~= "call" or inner.name ~= "logical_not" then return nil end
    local condition = inner.args[1]
    return condition.kind == "call" and masks[condition.name] and condition or nil
  end,
}
for name in pairs(compare) do
  rules[name] = function(args) return compared(name, args[1], args[2]) end
end
for _, name in ipairs { "logical_and", "logical_or", "logical_xor" } do
  rules[name] = function(args) return joined(name, args[1], args[2]) end
end

-- The value of an op of numbers; nil when it is none, or not finite.
local function folded(name, args)
  local op = nyx.op(name)
  local float64 = false
  for _, dtype in ipairs(op.dtypes) do float64 = float64 or dtype == "float64" end
  if not float64 then return nil end
  local values = {}
  for i, arg in ipairs(args) do
    if not is_number(arg) then return nil end
    values[i] = i > #op.inputs and arg.value or nyx.tensor(arg.value, { dtype = "float64" })
  end
  local value = nyx[name](unpack(values)):item()
  if type(value) == "boolean" then return truth(value) end
  return finite(value) and M.number(value) or nil
end

--- An op applied to nodes: its inputs, then its attributes.
---@param name string
---@param args nyx.Expression[]
---@return nyx.Expression
function M.call(name, args)
  local simpler = rules[name] and rules[name](args)
  if simpler or name == "where" or name == "pow" then return simpler end
  return folded(name, args) or finish { kind = "call", name = name, args = args }
end

-- Inside where(c, a, b), a choice by the same condition is made already.
local function chosen(condition, node, branch)
  if is_where(node) and node.args[1].text == condition.text then return node.args[branch] end
  return node
end

--- a where the condition is not 0, b elsewhere.
---@param condition nyx.Expression
---@param a nyx.Expression
---@param b nyx.Expression
---@return nyx.Expression
function M.where(condition, a, b)
  if is_number(condition) then return condition.value ~= 0 and a or b end
  if condition.kind ~= "call" or not masks[condition.name] then
    condition = M.call("ne", { condition, zero })
  end
  if condition.name == "logical_not" then return M.where(condition.args[1], b, a) end
  a, b = chosen(condition, a, 2), chosen(condition, b, 3)
  if a.text == b.text then return a end
  return finish { kind = "call", name = "where", args = { condition, a, b } }
end

return M
