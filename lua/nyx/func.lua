-- nyx.func: functions that transform functions of tensors, as torch.func has them: gradients,
-- forward mode, Jacobians, Hessians, vectorisation. They take and give Lua functions and
-- combine in any order. Arguments and results may be tensors or tables of tensors.
-- Read next: core/include/nyx/transform.h, bindings/lua/transform.c.
local check = require "nyx.check"
local nyx = require "nyx"
local trees = require "nyx.tree"

local lift = nyx.lift
local is_tensor = nyx.is_tensor
local map_tree, leaves_of, rebuild = trees.map, trees.leaves, trees.rebuild
local unpack = table.unpack or unpack

---@class nyx.func
local M = {}

local function pack(...) return { n = select("#", ...), ... } end

-- Functions and what can be called like one (modules).
local function check_function(where, f)
  local meta = getmetatable(f)
  if type(f) ~= "function" and not (type(meta) == "table" and meta.__call) then
    check.fail("%s: 'f' is %s, expected a function of tensors", where, check.describe(f))
  end
  return f
end

-- Which arguments a transform is about: a number, or a list of numbers.
local function read_argnums(where, argnums, count)
  local single = argnums == nil or type(argnums) == "number"
  local list = single and { argnums or 1 } or check.type(where, "argnums", argnums, "table")
  for _, i in ipairs(list) do
    check.integer(where, "argnums", i)
    if i > count then
      check.fail("%s: argnums names argument %d, the function got %d", where, i, count)
    end
  end
  return list, single
end

-- Arguments with variables in the chosen places; gives all the variables as a list, and the
-- arguments by number.
local function variables_of(where, args, argnums)
  local inputs, list = { n = args.n, unpack(args, 1, args.n) }, {}
  for _, i in ipairs(argnums) do
    local found = #list
    inputs[i] = map_tree(args[i], function(t)
      local variable = lift.variable(t)
      list[#list + 1] = variable
      return variable
    end)
    if #list == found then
      check.fail("%s: argument %d is %s, expected a tensor or a table of tensors", where, i,
        check.describe(args[i]))
    end
  end
  return inputs, list
end

-- Gradients as the arguments had them: zeros where the result does not depend on one.
local function as_arguments(inputs, argnums, single, list, grads)
  local by_variable, results = {}, {}
  for i, variable in ipairs(list) do
    by_variable[variable] = grads[i] or nyx.zeros_like(variable:detach())
  end
  for k, i in ipairs(argnums) do
    results[k] = map_tree(inputs[i], function(t) return by_variable[t] end)
  end
  if single then return results[1] end
  return results
end

local function grad_and_value(where, f, options)
  check_function(where, f)
  options = check.options(where, options, "argnums has_aux")
  return function(...)
    local args = pack(...)
    local argnums, single = read_argnums(where, options.argnums, args.n)
    local inputs, list = variables_of(where, args, argnums)
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
        out[i] = map_tree(out[i], function(t) return lift.result(t, list) end)
      end
      grads = nyx.grad(value, list, { create_graph = "needed" })
    end
    return as_arguments(inputs, argnums, single, list, grads), out
  end, options
end

--- grad(f) is the function that gives the gradient of f, which returns a tensor with one
--- element. `argnums` says by which argument, or a list of them (default 1); an argument may
--- be a table of tensors, and the gradient is one of the same form. With `has_aux` f returns
--- (loss, aux), grad(f) the gradient and aux.
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
--- more than once. For results that are tables of tensors v is such a table.
---@param f function
---@param ... any
---@return any result, function pullback
function M.vjp(f, ...)
  check_function("func.vjp", f)
  local args = pack(...)
  local argnums = {}
  for i = 1, args.n do
    if #leaves_of(args[i]) > 0 then argnums[#argnums + 1] = i end
  end
  local inputs, list = variables_of("func.vjp", args, argnums)
  local out = lift.recording(f, unpack(inputs, 1, inputs.n))
  local outs = leaves_of(out)
  if #outs == 0 then
    check.fail("func.vjp: the function returned %s, expected a tensor or a table of tensors",
      check.describe(out))
  end
  local function pullback(v)
    local seeds = leaves_of(v)
    if #seeds ~= #outs then
      check.fail("func.vjp: the pullback got %d tensors, expected %d, one for each result",
        #seeds, #outs)
    end
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
    return unpack(as_arguments(inputs, argnums, false, list, total), 1, #argnums)
  end
  local plain = map_tree(out, function(t) return lift.result(t, list) end)
  return plain, pullback
end

-- Runs f on duals; gives the values and the tangents (zeros where nothing reached), as trees.
local function run_duals(level, f, primals, tangents)
  local args = {}
  for i = 1, primals.n do
    local tangent_leaves = leaves_of(tangents[i])
    local primal_leaves = leaves_of(primals[i])
    if tangents[i] ~= nil and #tangent_leaves ~= #primal_leaves then
      check.fail("func.jvp: argument %d has %d tensors and %d tangents", i, #primal_leaves,
        #tangent_leaves)
    end
    local duals = {}
    for k, leaf in ipairs(primal_leaves) do
      duals[k] = tangents[i] ~= nil and lift.dual(level, leaf, tangent_leaves[k]) or leaf
    end
    args[i] = rebuild(primals[i], duals)
  end
  local out = pack(f(unpack(args, 1, primals.n)))
  local first = out[1]
  if #leaves_of(first) == 0 then
    check.fail("func.jvp: the function returned %s, expected a tensor or a table of tensors",
      check.describe(first))
  end
  local values, derivatives = {}, {}
  for k, leaf in ipairs(leaves_of(first)) do
    local value, tangent = lift.parts(level, leaf)
    values[k] = value
    derivatives[k] = tangent or nyx.zeros_like(value)
  end
  for i = 2, out.n do
    out[i] = map_tree(out[i], function(t) return (lift.parts(level, t)) end)
  end
  return rebuild(first, values), rebuild(first, derivatives), unpack(out, 2, out.n)
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
  check_function("func.jvp", f)
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

-- in_dims for one argument: a dimension for all its tensors, a tree of dimensions, or false.
local function map_in(level, tree, dim, size_only)
  if dim == nil then dim = 1 end
  if type(dim) == "table" and not is_tensor(tree) then
    check.type("func.vmap", "argument", tree, "table")
    local result = {}
    for key, value in pairs(tree) do
      local inner = dim[key]
      if inner == nil then inner = false end
      result[key] = map_in(level, value, inner, size_only)
    end
    return result
  end
  if not dim then return tree end
  return map_tree(tree, function(t) return lift.entries(level, t, dim) end)
end

-- The first mapped tensor's size along its dimension.
local function find_size(tree, dim)
  if dim == nil then dim = 1 end
  if not dim then return nil end
  if is_tensor(tree) then
    local shape = tree.shape
    local at = dim < 0 and #shape + 1 + dim or dim
    if at < 1 or at > #shape then
      check.fail("func.vmap: in_dims names dimension %s of %s", tostring(dim),
        check.describe(tree))
    end
    return shape[at]
  end
  if type(tree) ~= "table" or getmetatable(tree) then return nil end
  for key, value in pairs(tree) do
    local inner = dim
    if type(dim) == "table" then
      inner = dim[key]
      if inner == nil then inner = false end
    end
    local size = find_size(value, inner)
    if size then return size end
  end
end

local function join_results(level, out, out_dims)
  local results = { n = out.n }
  for i = 1, out.n do
    local dim = type(out_dims) == "table" and out_dims[i] or type(out_dims) == "number" and out_dims
    results[i] = map_tree(out[i], function(t) return lift.join(level, t, dim or 1) end)
  end
  return results
end

local function run_entries(level, f, args, in_dims, out_dims)
  local mapped = {}
  for i = 1, args.n do
    local dim = in_dims
    if type(in_dims) == "table" then
      dim = in_dims[i]
      if dim == nil then dim = false end
    end
    mapped[i] = map_in(level, args[i], dim)
  end
  return join_results(level, pack(f(unpack(mapped, 1, args.n))), out_dims)
end

-- The mapped arguments cut to entries first..last.
local function cut(args, in_dims, first, count)
  local function narrow(tree, dim)
    if dim == nil then dim = 1 end
    if not dim then return tree end
    if is_tensor(tree) then return tree:narrow(dim, first, count) end
    if type(tree) ~= "table" or getmetatable(tree) then return tree end
    local result = {}
    for key, value in pairs(tree) do
      local inner = dim
      if type(dim) == "table" then
        inner = dim[key]
        if inner == nil then inner = false end
      end
      result[key] = narrow(value, inner)
    end
    return result
  end
  local result = { n = args.n }
  for i = 1, args.n do
    local dim = in_dims
    if type(in_dims) == "table" then
      dim = in_dims[i]
      if dim == nil then dim = false end
    end
    result[i] = narrow(args[i], dim)
  end
  return result
end

local function join_chunks(chunks, out_dims)
  local joined = { n = chunks[1].n }
  for i = 1, joined.n do
    local dim = type(out_dims) == "table" and out_dims[i] or type(out_dims) == "number" and out_dims
    local lists = {}
    for k, chunk in ipairs(chunks) do lists[k] = leaves_of(chunk[i]) end
    local parts = {}
    for leaf = 1, #lists[1] do
      local column = {}
      for k = 1, #lists do column[k] = lists[k][leaf] end
      parts[leaf] = nyx.cat(column, dim or 1)
    end
    joined[i] = rebuild(chunks[1][i], parts)
  end
  return joined
end

--- vmap(f) is f over a batch: f is written for one entry, vmap(f) takes tensors with a further
--- dimension and gives results with one, computed for all entries at once. `in_dims` says
--- which dimension of each argument is the batch: a number for all (default 1), or a list with
--- a number, false (the same for all entries) or a table like the argument; `out_dims` where
--- it goes in the results (default 1). `chunk_size` entries at a time bound the memory. Ops
--- without a batching rule run entry by entry. Random numbers differ between entries where
--- the op has a mapped input, and are the same for all otherwise.
---@param f function
---@param options? {in_dims: any, out_dims: any, chunk_size: integer}
---@return function
function M.vmap(f, options)
  check_function("func.vmap", f)
  options = check.options("func.vmap", options, "in_dims out_dims chunk_size")
  local in_dims, out_dims, chunk = options.in_dims, options.out_dims, options.chunk_size
  if chunk then check.integer("func.vmap", "chunk_size", chunk) end
  return function(...)
    local args = pack(...)
    local size
    for i = 1, args.n do
      local dim = in_dims
      if type(in_dims) == "table" then
        dim = in_dims[i]
        if dim == nil then dim = false end
      end
      size = size or find_size(args[i], dim)
    end
    if not size then
      check.fail("func.vmap: no argument has a mapped dimension; see in_dims")
    end
    local results
    if chunk and chunk < size then
      local chunks = {}
      for first = 1, size, chunk do
        local count = math.min(chunk, size - first + 1)
        chunks[#chunks + 1] = lift.batch_level(count, run_entries, f,
          cut(args, in_dims, first, count), in_dims, out_dims)
      end
      results = join_chunks(chunks, out_dims)
    else
      results = lift.batch_level(size, run_entries, f, args, in_dims, out_dims)
    end
    return unpack(results, 1, results.n)
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
  local list = leaves_of(y)
  if #list == 0 then
    check.fail("func.jacobian: the function returned %s, expected a tensor or a table of tensors",
      check.describe(y))
  end
  return list
end

-- Reverse mode: one row of the Jacobian per element of the result, all at once.
local function reverse(f, args, argnums, single, chunk)
  local inputs, list = variables_of("func.jacobian", args, argnums)
  local out = pack(lift.recording(f, unpack(inputs, 1, inputs.n)))
  local results = results_of(out[1])
  local blocks = {} -- one for each tensor of the result, as the arguments are
  for k, y in ipairs(results) do
    local rows = {}
    if y.requires_grad and y:numel() > 0 then
      local pull = M.vmap(function(v)
        local grads = nyx.grad(y, list,
          { gradient = v, retain_graph = true, create_graph = "needed" })
        local result = {}
        for i, variable in ipairs(list) do
          result[i] = grads[i] or nyx.zeros_like(variable:detach())
        end
        return result
      end, { chunk_size = chunk })
      rows = pull(basis_of(y))
    end
    local jacobians = {}
    for i, variable in ipairs(list) do
      local shape = concat(y.shape, variable.shape)
      jacobians[i] = rows[i] and rows[i]:reshape(shape)
        or nyx.zeros(shape, { dtype = y.dtype }):to(y.device)
    end
    blocks[k] = as_arguments(inputs, argnums, single, list, jacobians)
  end
  return rebuild(out[1], blocks), out
end

-- Forward mode: one column per element of the arguments.
local function forward(f, args, argnums, single, chunk)
  local first, out -- what f returned first, and all
  local columns = {} -- by result: the arguments' trees of blocks
  for at, i in ipairs(argnums) do
    local leaves = leaves_of(args[i])
    if #leaves == 0 then
      check.fail("func.jacobian: argument %d is %s, expected a tensor or a table of tensors", i,
        check.describe(args[i]))
    end
    local blocks = {}
    for l, x in ipairs(leaves) do
      local push = M.vmap(function(v)
        local function along(t)
          local now = {}
          for m, leaf in ipairs(leaves) do now[m] = leaf end
          now[l] = t
          local all = { unpack(args, 1, args.n) }
          all[i] = rebuild(args[i], now)
          local returned = pack(f(unpack(all, 1, args.n)))
          results_of(returned[1])
          return unpack(returned, 1, returned.n)
        end
        local got = pack(M.jvp(along, { x }, { v }))
        first = first or got[1]
        if not out then
          out = { n = got.n - 1, got[1], unpack(got, 3, got.n) }
        end
        return leaves_of(got[2])
      end, { out_dims = -1, chunk_size = chunk })
      for k, column in ipairs(push(basis_of(x))) do
        local shape = {}
        for d = 1, #column.shape - 1 do shape[d] = column.shape[d] end
        blocks[k] = blocks[k] or {}
        blocks[k][l] = column:reshape(concat(shape, x.shape))
      end
    end
    for k, block in ipairs(blocks) do
      columns[k] = columns[k] or {}
      columns[k][at] = rebuild(args[i], block)
    end
  end
  if single then
    for k = 1, #columns do columns[k] = columns[k][1] end
  end
  return rebuild(first, columns), out
end

local function jacobian_by(where, f, options, choose)
  check_function(where, f)
  options = check.options(where, options, "argnums has_aux mode chunk_size")
  local mode = options.mode and check.choice(where, "mode", options.mode, "reverse forward")
  return function(...)
    local args = pack(...)
    local argnums, single = read_argnums(where, options.argnums, args.n)
    local way = mode or choose
    if not way then -- fewer passes
      local inputs, outputs = 0, 0
      for _, i in ipairs(argnums) do
        for _, t in ipairs(leaves_of(args[i])) do inputs = inputs + t:numel() end
      end
      for _, t in ipairs(leaves_of((nyx.no_grad(f, ...)))) do outputs = outputs + t:numel() end
      way = inputs < outputs and "forward" or "reverse"
    end
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
  check_function("func.hessian", f)
  options = check.options("func.hessian", options, "argnums chunk_size")
  return M.jacfwd(M.jacrev(f, options), options)
end

--- hvp(f, primals, tangents) gives the value of f, which returns a tensor with one element,
--- and the product of its Hessian by the first argument with tangents[1] (Pearlmutter 1994:
--- forward over reverse mode, without the matrix). With several arguments each has a tangent
--- (false: zero), and the products by all arguments come as a list.
---@param f function
---@param primals any[]
---@param tangents any[]
---@return nyx.Tensor value, any product
function M.hvp(f, primals, tangents)
  check_function("func.hvp", f)
  if is_tensor(primals) then primals = { primals } end
  if is_tensor(tangents) then tangents = { tangents } end
  check.type("func.hvp", "primals", primals, "table")
  check.type("func.hvp", "tangents", tangents, "table")
  local argnums = {}
  for i = 1, #primals do argnums[i] = i end
  if #primals == 1 then argnums = 1 end
  local both = M.value_and_grad(f, { argnums = argnums })
  local result, derivative = M.jvp(function(...)
    local value, grads = both(...)
    return { value = value, grads = grads }
  end, primals, tangents)
  return result.value, derivative.grads
end

--- functional_call(module, parameters, ...): module(...) with the tensors of the table
--- `parameters` ("layer.weight" -> tensor) in place of its own, which stay as they are: what
--- makes gradients, vmap and jvp by a module's parameters possible.
---@param module nyx.nn.Module
---@param parameters table<string, nyx.Tensor>
---@param ... any
---@return any ...
function M.functional_call(module, parameters, ...)
  local where = "func.functional_call"
  check.type(where, "module", module, "table")
  check.type(where, "parameters", parameters, "table")
  local places = {}
  for name, value in pairs(parameters) do
    check.tensor(where, tostring(name), value)
    local owner = module
    for part in name:gmatch("([^.]+)%.") do
      owner = type(owner) == "table" and (rawget(owner, tonumber(part) or part)
        or rawget(owner, part)) or nil
    end
    local key = name:match("[^.]+$")
    if type(owner) == "table" and rawget(owner, key) == nil then key = tonumber(key) or key end
    local old = type(owner) == "table" and rawget(owner, key) or nil
    if not is_tensor(old) then
      check.fail("%s: the module has no parameter or buffer '%s'", where, name)
    end
    if table.concat(old.shape, "x") ~= table.concat(value.shape, "x") then
      check.fail("%s: '%s' is %s, the module's is %s", where, name, check.describe(value),
        check.describe(old))
    end
    places[#places + 1] = { owner = owner, key = key, old = old, new = value }
  end
  local function put(which)
    for _, place in ipairs(places) do rawset(place.owner, place.key, place[which]) end
  end
  put "new"
  local result = pack(pcall(module, ...))
  put "old"
  if not result[1] then error(result[2], 0) end
  return unpack(result, 2, result.n)
end

return M
