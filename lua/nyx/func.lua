-- nyx.func: functions that transform functions of tensors, as torch.func has them: gradients,
-- forward mode, Jacobians, Hessians, vectorisation. They take and give Lua functions and
-- combine in any order. Arguments and results may be tensors or tables of tensors.
-- Read next: func/vmap.lua, func/functional_call.lua, core/include/nyx/transform.h.
local check = require "nyx.check"
local functional = require "nyx.func.functional_call"
local nyx = require "nyx"
local trees = require "nyx.tree"
local vmap = require "nyx.func.vmap"

local lift = nyx.lift
local is_tensor = nyx.is_tensor
local unpack = table.unpack or unpack

---@class nyx.func
local M = { vmap = vmap.vmap, functional_call = functional.functional_call,
  stack_module_state = functional.stack_module_state }

local function pack(...) return { n = select("#", ...), ... } end

local function itself(value) return value end

-- Which arguments a transform is about: a number, or a list of numbers; -1 is the last one.
local function read_argnums(where, argnums, count)
  local single = argnums == nil or type(argnums) == "number"
  local given = single and { argnums or 1 } or check.type(where, "argnums", argnums, "table")
  local list, seen = {}, {}
  for k, i in ipairs(given) do
    if type(i) ~= "number" or i % 1 ~= 0 or i == 0 then
      check.fail("%s: 'argnums' has %s, expected positions of arguments, from 1 or from -1 "
        .. "backwards", where, check.describe(i))
    end
    list[k] = i < 0 and count + 1 + i or i
    if list[k] < 1 or list[k] > count then
      check.fail("%s: argnums names argument %d, the function got %d", where, i, count)
    end
    if seen[list[k]] then check.fail("%s: argnums names argument %d twice", where, list[k]) end
    seen[list[k]] = true
  end
  return list, single
end

-- Arguments with variables in the chosen places; gives all the variables as a list, and the
-- chosen arguments as they are before the function can write into them.
local function variables_of(where, args, argnums)
  local inputs, list, given = { n = args.n, unpack(args, 1, args.n) }, {}, {}
  for k, i in ipairs(argnums) do
    local found = #list
    given[k] = trees.map(args[i], itself, where)
    inputs[i] = trees.map(args[i], function(t)
      local variable = lift.variable(t)
      list[#list + 1] = variable
      return variable
    end, where)
    if #list == found then
      check.fail("%s: argument %d is %s, expected a tensor or a table of tensors", where, i,
        check.describe(args[i]))
    end
  end
  return inputs, list, given
end

-- Gradients as the arguments had them: zeros where the result does not depend on one.
local function as_arguments(where, given, single, list, grads)
  local at, results = 0, {}
  for k, tree in ipairs(given) do
    results[k] = trees.map(tree, function()
      at = at + 1
      return grads[at] or nyx.zeros_like(list[at]:detach())
    end, where)
  end
  if single then return results[1] end
  return results
end

local function grad_and_value(where, f, options)
  check.callable(where, "f", f)
  options = check.options(where, options, "argnums has_aux")
  return function(...)
    local args = pack(...)
    local argnums, single = read_argnums(where, options.argnums, args.n)
    local inputs, list, given = variables_of(where, args, argnums)
    local out = pack(lift.recording(f, unpack(inputs, 1, inputs.n)))
    local value = out[1]
    if not is_tensor(value) then
      check.fail("%s: the function returned %s, expected a tensor with one element", where,
        check.describe(value))
    end
    if value:numel() ~= 1 then
      check.fail("%s: the function returned %s, expected one element; use nyx.func.vjp or "
        .. "nyx.func.jacobian", where, check.describe(value))
    end
    local grads = {}
    if value.requires_grad then
      for i = 1, out.n do
        out[i] = trees.map(out[i], function(t) return lift.result(t, list) end, where)
      end
      grads = nyx.grad(value, list, { create_graph = "needed" })
    end
    return as_arguments(where, given, single, list, grads), out
  end, options
end

--- grad(f) is the function that gives the gradient of f, which returns a tensor with one
--- element. `argnums` says by which argument, or a list of them (default 1); an argument may
--- be a table of tensors, and the gradient is one of the same form. With `has_aux` f returns
--- (loss, aux), grad(f) the gradient and aux. What f captures from outside may require
--- gradients; f should not change it in place: the change would stay, with the history that it
--- has inside.
---@param f function
---@param options? {argnums: integer|integer[], has_aux: boolean}
---@return function
function M.grad(f, options)
  local both
  both, options = grad_and_value("func.grad", f, options)
  return function(...)
    local grads, out = both(...)
    if options.has_aux then return grads, unpack(out, 2, out.n) end
    return grads
  end
end

--- value_and_grad(f) gives the value of f and its gradient: (value, gradient), with has_aux
--- (value, gradient, aux). Options as for grad.
---@param f function
---@param options? table
---@return function
function M.value_and_grad(f, options)
  local both
  both, options = grad_and_value("func.value_and_grad", f, options)
  return function(...)
    local grads, out = both(...)
    if options.has_aux then return out[1], grads, unpack(out, 2, out.n) end
    return out[1], grads
  end
end

--- vjp(f, ...) applies f and gives its result and a function: given v, shaped as the result,
--- it returns the products v^T J with the Jacobian by each of the arguments. It may be called
--- more than once. For results that are tables of tensors v is such a table. Further results of
--- f are passed on, as values, behind the function.
---@param f function
---@param ... any
---@return any result, function pullback, any ...
function M.vjp(f, ...)
  local where = "func.vjp"
  check.callable(where, "f", f)
  local args = pack(...)
  local argnums = {}
  for i = 1, args.n do
    if #trees.leaves(args[i], nil, where) > 0 then argnums[#argnums + 1] = i end
  end
  local inputs, list, given = variables_of(where, args, argnums)
  local out = pack(lift.recording(f, unpack(inputs, 1, inputs.n)))
  local first = trees.map(out[1], itself, where)
  local outs = trees.leaves(first, nil, where)
  if #outs == 0 then
    check.fail("%s: the function returned %s, expected a tensor or a table of tensors", where,
      check.describe(first))
  end
  local function pullback(v)
    local seeds = trees.leaves(v, nil, where)
    if #seeds ~= #outs then
      check.fail("%s: the pullback got %d tensors, expected %d, one for each result", where,
        #seeds, #outs)
    end
    trees.matched(where, "what the pullback got", v, first, "the result")
    local total = {}
    for k, result in ipairs(outs) do
      if result.requires_grad then
        local grads = nyx.grad(result, list,
          { gradient = seeds[k], retain_graph = true, create_graph = "needed" })
        for i = 1, #list do
          if grads[i] then total[i] = total[i] and total[i] + grads[i] or grads[i] end
        end
      end
    end
    return unpack(as_arguments(where, given, false, list, total), 1, #argnums)
  end
  for i = 1, out.n do
    out[i] = trees.map(out[i], function(t) return lift.result(t, list) end, where)
  end
  return out[1], pullback, unpack(out, 2, out.n)
end

local function check_tangent(i, tangent, x)
  local got, wanted = table.concat(tangent.shape, "x"), table.concat(x.shape, "x")
  if got ~= wanted or tangent.dtype ~= x.dtype then
    check.fail("func.jvp: the tangent of argument %d has shape (%s) and dtype %s, expected (%s) "
      .. "and %s as the argument", i, got, tangent.dtype, wanted, x.dtype)
  end
end

-- The tree of an argument with duals in place of its tensors.
local function dual_of(level, i, primal, tangent)
  if tangent == nil then return trees.map(primal, itself, "func.jvp") end
  local along, leaves = trees.matched("func.jvp", ("the tangent of argument %d"):format(i),
    tangent, primal, "the argument")
  local duals = {}
  for k, leaf in ipairs(leaves) do
    check_tangent(i, along[k], leaf)
    duals[k] = lift.dual(level, leaf, along[k])
  end
  return trees.rebuild(primal, duals, "func.jvp")
end

-- Runs f on duals; gives the values and the tangents (zeros where nothing reached), as trees.
local function run_duals(level, f, primals, tangents)
  local where, args = "func.jvp", {}
  for i = 1, primals.n do args[i] = dual_of(level, i, primals[i], tangents[i]) end
  local out = pack(f(unpack(args, 1, primals.n)))
  local first = out[1]
  local leaves = trees.leaves(first, nil, where)
  if #leaves == 0 then
    check.fail("%s: the function returned %s, expected a tensor or a table of tensors", where,
      check.describe(first))
  end
  local values, derivatives = {}, {}
  for k, leaf in ipairs(leaves) do
    local value, tangent = lift.parts(level, leaf)
    values[k] = value
    derivatives[k] = tangent or nyx.zeros_like(value)
  end
  for i = 2, out.n do
    out[i] = trees.map(out[i], function(t) return (lift.parts(level, t)) end, where)
  end
  return trees.rebuild(first, values, where), trees.rebuild(first, derivatives, where),
    unpack(out, 2, out.n)
end

--- jvp(f, primals, tangents) applies f to the arguments in the list `primals` and gives its
--- result and the derivative along `tangents` (a list like primals; false or nil where zero):
--- forward mode (Wengert 1964), at two to three times the cost of f, whatever the number of
--- inputs. Further results of f are passed on, as values.
---@param f function
---@param primals any[]
---@param tangents any[]
---@return any result, any derivative
function M.jvp(f, primals, tangents)
  check.callable("func.jvp", "f", f)
  if is_tensor(primals) then primals = { primals } end
  if is_tensor(tangents) then tangents = { tangents } end
  check.type("func.jvp", "primals", primals, "table")
  check.type("func.jvp", "tangents", tangents, "table")
  local n = #primals
  local given = { n = n, unpack(primals, 1, n) }
  local along = {}
  for i = 1, n do along[i] = tangents[i] or nil end
  for i in pairs(tangents) do
    if type(i) ~= "number" or i > n then
      check.fail("func.jvp: there is a tangent for argument %s, the function has %d",
        tostring(i), n)
    end
  end
  return lift.dual_level(run_duals, f, given, along)
end

--- linearize(f, ...) gives f's result and the function of tangents, one for each argument
--- (false: zero), that gives the derivative along them. Each call runs f again, on the same
--- arguments and with the same random numbers.
---@param f function
---@param ... any
---@return any result, function push
function M.linearize(f, ...)
  check.callable("func.linearize", "f", f)
  local args, state = pack(...), nyx.get_rng_state()
  local primals = {}
  for i = 1, args.n do primals[i] = trees.map(args[i], itself, "func.linearize") end
  local result = f(...)
  return result, function(...)
    local now = nyx.get_rng_state()
    nyx.set_rng_state(state)
    local _, derivative = M.jvp(f, primals, { ... })
    nyx.set_rng_state(now)
    return derivative
  end
end

-- The rows of the identity as tensors shaped like t: (numel, shape of t).
local function basis_of(t)
  local shape = { t:numel(), unpack(t.shape) }
  return nyx.eye(t:numel(), { dtype = t.dtype }):to(t.device):reshape(shape)
end

local function concat(a, b)
  local list = {}
  for i = 1, #a do list[i] = a[i] end
  for i = 1, #b do list[#a + i] = b[i] end
  return list
end

-- The tensors of what f returned first.
local function results_of(y)
  local list = trees.leaves(y, nil, "func.jacobian")
  if #list == 0 then
    check.fail("func.jacobian: the function returned %s, expected a tensor or a table of tensors",
      check.describe(y))
  end
  return list
end

-- Reverse mode: one row of the Jacobian per element of the result, all at once.
local function reverse(f, args, argnums, single, chunk)
  local inputs, list, given = variables_of("func.jacobian", args, argnums)
  local out = pack(lift.recording(f, unpack(inputs, 1, inputs.n)))
  local results = results_of(out[1])
  local blocks = {} -- one for each tensor of the result, as the arguments are
  for k, y in ipairs(results) do
    local rows = {}
    if y.requires_grad and y:numel() > 0 then
      local pull = vmap.vmap(function(v)
        local grads = nyx.grad(y, list,
          { gradient = v, retain_graph = true, create_graph = "needed" })
        local result = {}
        for i, variable in ipairs(list) do
          result[i] = grads[i] or nyx.zeros_like(variable:detach())
        end
        return result
      end, { chunk_size = chunk, randomness = "same" })
      rows = pull(basis_of(y))
    end
    local jacobians = {}
    for i, variable in ipairs(list) do
      local shape = concat(y.shape, variable.shape)
      jacobians[i] = rows[i] and rows[i]:reshape(shape)
        or nyx.zeros(shape, { dtype = y.dtype }):to(y.device)
    end
    blocks[k] = as_arguments("func.jacobian", given, single, list, jacobians)
  end
  return trees.rebuild(out[1], blocks, "func.jacobian"), out
end

-- Forward mode: one column per element of leaf l of argument i. Gives the columns of all
-- results, what f returned first, and all it returned.
local function columns_of(f, args, i, leaves, l, chunk)
  local where, first, out = "func.jacobian", nil, nil
  local function along(t)
    local now = {}
    for m, leaf in ipairs(leaves) do now[m] = leaf end
    now[l] = t
    local all = { unpack(args, 1, args.n) }
    all[i] = trees.rebuild(args[i], now, where)
    local returned = pack(f(unpack(all, 1, args.n)))
    results_of(returned[1])
    return unpack(returned, 1, returned.n)
  end
  local push = vmap.vmap(function(v)
    local got = pack(M.jvp(along, { leaves[l] }, { v }))
    first, out = got[1], { n = got.n - 1, got[1], unpack(got, 3, got.n) }
    return trees.leaves(got[2], nil, where)
  end, { out_dims = -1, chunk_size = chunk, randomness = "same" })
  return push(basis_of(leaves[l])), first, out
end

local function forward(f, args, argnums, single, chunk)
  local where, first, out = "func.jacobian", nil, nil
  local columns = {} -- by result: the arguments' trees of blocks
  local state = nyx.get_rng_state() -- f runs more than once, and is one function
  for at, i in ipairs(argnums) do
    local leaves = trees.leaves(args[i], nil, where)
    if #leaves == 0 then
      check.fail("%s: argument %d is %s, expected a tensor or a table of tensors", where, i,
        check.describe(args[i]))
    end
    local blocks = {}
    for l, x in ipairs(leaves) do
      nyx.set_rng_state(state)
      local list
      list, first, out = columns_of(f, args, i, leaves, l, chunk)
      for k, column in ipairs(list) do
        local shape = {}
        for d = 1, #column.shape - 1 do shape[d] = column.shape[d] end
        blocks[k] = blocks[k] or {}
        blocks[k][l] = column:reshape(concat(shape, x.shape))
      end
    end
    for k, block in ipairs(blocks) do
      columns[k] = columns[k] or {}
      columns[k][at] = trees.rebuild(args[i], block, where)
    end
  end
  if single then
    for k = 1, #columns do columns[k] = columns[k][1] end
  end
  return trees.rebuild(first, columns, where), out
end

-- The mode that needs fewer passes. f runs once more, on the same random numbers.
local function cheaper_mode(where, f, args, argnums)
  local inputs, outputs, state = 0, 0, nyx.get_rng_state()
  for _, i in ipairs(argnums) do
    for _, t in ipairs(trees.leaves(args[i], nil, where)) do inputs = inputs + t:numel() end
  end
  local y = nyx.no_grad(f, unpack(args, 1, args.n))
  nyx.set_rng_state(state)
  for _, t in ipairs(trees.leaves(y, nil, where)) do outputs = outputs + t:numel() end
  return inputs < outputs and "forward" or "reverse"
end

local function jacobian_by(where, f, options, choose)
  check.callable(where, "f", f)
  options = check.options(where, options, "argnums has_aux mode chunk_size")
  local mode = options.mode and check.choice(where, "mode", options.mode, "reverse forward")
  return function(...)
    local args = pack(...)
    local argnums, single = read_argnums(where, options.argnums, args.n)
    local way = mode or choose or cheaper_mode(where, f, args, argnums)
    local run = way == "forward" and forward or reverse
    local result, out = run(f, args, argnums, single, options.chunk_size)
    if options.has_aux then return result, unpack(out, 2, out.n) end
    return result
  end
end

--- jacobian(f) gives the matrix of derivatives of f's result by an argument, of shape
--- (result's shape, argument's shape), or a table of such for tables of tensors, the result's
--- structure outside the argument's: reverse mode where the result has fewer elements
--- (one pass per element of it), forward mode where the argument has; `mode` = "reverse" or
--- "forward" decides. `argnums` as for grad; `chunk_size` rows or columns at a time. To choose,
--- f is run once more.
---@param f function
---@param options? {argnums: any, mode: string, has_aux: boolean, chunk_size: integer}
---@return function
function M.jacobian(f, options) return jacobian_by("func.jacobian", f, options) end

--- The Jacobian by reverse mode.
---@param f function
---@param options? table
---@return function
function M.jacrev(f, options) return jacobian_by("func.jacrev", f, options, "reverse") end

--- The Jacobian by forward mode.
---@param f function
---@param options? table
---@return function
function M.jacfwd(f, options) return jacobian_by("func.jacfwd", f, options, "forward") end

--- hessian(f) gives the matrix of second derivatives of f, which returns a tensor with one
--- element (or any: the Hessians of all elements), by forward over reverse mode. For tables of
--- tensors and lists of argnums, a table of tables: the block of a and b is hessian.a.b.
---@param f function
---@param options? {argnums: integer|integer[], chunk_size: integer}
---@return function
function M.hessian(f, options)
  check.callable("func.hessian", "f", f)
  options = check.options("func.hessian", options, "argnums chunk_size")
  return M.jacfwd(M.jacrev(f, options), options)
end

--- hvp(f, primals, tangents) gives the value of f, which returns a tensor with one element,
--- and the product of its Hessian by the first argument with tangents[1] (Pearlmutter 1994:
--- forward over reverse mode, without the matrix). With several arguments each has a tangent
--- (false: zero), and the products by all arguments come as a list (false for those that are
--- no tensors).
---@param f function
---@param primals any[]
---@param tangents any[]
---@return nyx.Tensor value, any product
function M.hvp(f, primals, tangents)
  local where = "func.hvp"
  check.callable(where, "f", f)
  if is_tensor(primals) then primals = { primals } end
  if is_tensor(tangents) then tangents = { tangents } end
  check.type(where, "primals", primals, "table")
  check.type(where, "tangents", tangents, "table")
  local argnums = {}
  for i = 1, #primals do
    if #trees.leaves(primals[i], nil, where) > 0 then argnums[#argnums + 1] = i end
  end
  if #argnums == 0 then
    check.fail("%s: none of the primals is a tensor or a table of tensors", where)
  end
  local both = grad_and_value(where, f, { argnums = argnums })
  local result, derivative = M.jvp(function(...)
    local grads, out = both(...)
    return { value = out[1], grads = grads }
  end, primals, tangents)
  local products = {}
  for i = 1, #primals do products[i] = false end
  for k, i in ipairs(argnums) do products[i] = derivative.grads[k] end
  if #primals == 1 then products = products[1] end
  return result.value, products
end

return M
