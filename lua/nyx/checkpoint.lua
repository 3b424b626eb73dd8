-- nyx.checkpoint: runs a function without keeping what its gradient needs, and runs it again
-- in the backward pass. One node stands for the function; its inputs are the tensors it was
-- given and those it found for itself (parameters), so gradients reach both as ever.
-- Read next: custom.lua, core/grad/boundary.c, nn/container.lua (checkpoint_sequential).
local nyx = require "nyx.core"
local check = require "nyx.check"
local trees = require "nyx.tree"

local unpack = unpack or table.unpack
local system = nyx.system

local M = {}

local NAME = "checkpoint"
local MOST = 60 -- tensors that one node takes

local function pack(...)
  return { n = select("#", ...), ... }
end

-- ---------------------------------------------------------------- running again

local depth = 0 -- functions that run again now, one inside the other

--- Whether a checkpointed function runs again, in the backward pass. What it changes by
--- itself, as batch norm its running statistics, is changed by the first run alone.
---@return boolean
function M.recomputing()
  return depth > 0
end

-- What has to be so again around a function that runs again: a function of it and its
-- arguments; nil: nothing.
local surroundings = nil

-- fn(...) while `around` is what surrounds checkpoints.
local function within(around, fn, ...)
  local outer = surroundings
  surroundings = around
  local results = pack(pcall(fn, ...))
  surroundings = outer
  if not results[1] then error(results[2], 0) end
  return unpack(results, 2, results.n)
end

--- around(fn, ...), which calls fn(...), here and around the second run of every checkpoint
--- inside: how nyx.func.functional_call has its parameters in place for both.
---@param around fun(fn: function, ...): any
---@param fn function
---@param ... any
---@return any ...
function M.surround(around, fn, ...)
  local outer = surroundings
  local function both(f, ...) return outer(around, f, ...) end
  return within(outer and both or around, around, fn, ...)
end

local function surrounded(state, fn, ...)
  local around = state.surroundings
  if around then return within(around, around, fn, ...) end
  return within(nil, fn, ...)
end

-- fn(...) as it was when `state` was noted. Parameters are cast anew inside: the casts
-- belong to the function's own graph.
local function replay(state, fn, ...)
  local now = state.random and nyx.get_rng_state()
  if state.random then nyx.set_rng_state(state.random) end
  depth = depth + 1
  local results = pack(pcall(nyx.autocast, state.autocast, nyx.enable_grad, surrounded, state, fn,
    ...))
  depth = depth - 1
  if state.random then nyx.set_rng_state(now) end
  system.forget_casts()
  if not results[1] then error(results[2], 0) end
  return unpack(results, 2, results.n)
end

local function state_now(without_random)
  return { random = not without_random and nyx.get_rng_state() or nil,
    autocast = system.autocast_mode(), surroundings = surroundings }
end

--- fn(...), recorded, leaving no trace: random numbers come again, statistics stay.
---@param fn fun(...): any
---@param ... any
---@return any ...
function M.rehearse(fn, ...)
  return replay(state_now(), fn, ...)
end

-- ---------------------------------------------------------------- one run

local function holds(list, value)
  for i = 1, #list do
    if list[i] == value then return true end
  end
  return false
end

-- Arguments for a run: tensors are leaves, or with create_graph views with history.
local function own_arguments(args, create)
  local own, leaves = { n = args.n }, {}
  for i = 1, args.n do
    local value = args[i]
    own[i] = value
    if nyx.is_tensor(value) then
      if create then
        own[i] = value:alias()
      else
        own[i] = value:detach()
        if value.requires_grad then own[i]:requires_grad_(true) end
      end
      leaves[#leaves + 1] = own[i]
    end
  end
  return own, leaves
end

-- The results of a run and the tensors in them, tables included; whether some have a gradient,
-- and what besides the arguments they depend on.
local function run(f, own, leaves)
  local since = system.graph_now()
  local results = pack(f(unpack(own, 1, own.n)))
  local tensors, roots = trees.leaves(results, nil, NAME), {}
  for _, t in ipairs(tensors) do
    if t.requires_grad then roots[#roots + 1] = t end
  end
  return results, tensors, #roots > 0, system.graph_inputs(roots, since, leaves)
end

-- ---------------------------------------------------------------- the gradient

-- A node that hands `grads` to `outputs`: the root of a pass from several results.
local function join(outputs, grads)
  local root = nyx.zeros({}, { dtype = outputs[1].dtype, device = outputs[1].device })
  system.record_function(NAME, outputs, #outputs, { root }, 1, {}, 0,
    function() return grads end)
  return root
end

local function different(what)
  check.fail("checkpoint: the function %s when it ran again for the gradient; expected the "
    .. "same ops on the same tensors: it may not depend on what changes in between (random "
    .. "numbers are nyx's own, which come again)", what)
end

-- Runs `node.f` again and gives the gradients of the inputs it needs: node.inputs first,
-- then node.captured.
local function recompute(node, args, grads, needs, create)
  local own, leaves = own_arguments(args, create)
  local results, captured, _
  if create then
    _, results, _, captured = run(node.f, own, leaves)
  else -- what the graph does not need goes before its gradients come
    _, results, _, captured = nyx.scope(run, node.f, own, leaves)
  end
  if #results ~= node.results then different("gave another number of results") end
  if #captured ~= #node.captured then different("used other variables") end
  local outputs, seeds = {}, {}
  for k, place in ipairs(node.recorded) do
    if grads[k] then
      local y = results[place]
      if not y.requires_grad then different(("gave a result %d without gradient"):format(place)) end
      outputs[#outputs + 1], seeds[#seeds + 1] = y, grads[k]
    end
  end
  local wanted, at = {}, {}
  for i, position in ipairs(node.inputs) do
    if needs[i] then
      wanted[#wanted + 1], at[#at + 1] = own[position], i
    end
  end
  for i, t in ipairs(node.captured) do
    if t.is_leaf and captured[i] ~= t then different("used other variables") end
    if needs[#node.inputs + i] then
      wanted[#wanted + 1], at[#at + 1] = captured[i], #node.inputs + i
    end
  end
  local list = {}
  if #outputs > 0 and #wanted > 0 then
    local root = outputs[2] and join(outputs, seeds) or outputs[1]
    local found = system.cut_grad(root, not outputs[2] and seeds[1] or nil, wanted, create)
    for i, place in ipairs(at) do list[place] = found[i] or nil end
  end
  return list
end

-- The arguments of the call, with the tensors that the node has saved.
local function arguments_of(node, saved)
  local args = { n = node.args.n }
  for i = 1, args.n do
    local slot = node.slots[i]
    args[i] = node.args[i]
    if slot then args[i] = saved[slot] end
  end
  return args
end

-- All gradients by node.inputs and node.captured, when the pass comes by.
local function gradients(node, saved, grads, needs)
  local args = arguments_of(node, saved)
  if nyx.is_grad_enabled() then -- with create_graph, this is a function like any other
    return replay(node.state, recompute, node, args, grads, needs, true)
  end
  local list = nyx.scope(replay, node.state, recompute, node, args, grads, needs, false)
  list.given = #node.inputs + #node.captured
  for i = 1, #saved do saved[i]:release() end
  for k = 1, #node.recorded do
    if grads[k] then grads[k]:release() end
  end
  return list
end

-- ---------------------------------------------------------------- the node

-- Captured tensors beyond what one node takes hang from further nodes, each a number
-- without meaning to the first, which leaves their gradients in `late`.
local function hang(captured, from, device)
  local part = {}
  for i = from, math.min(from + MOST - 1, #captured) do part[#part + 1] = captured[i] end
  local link, late = nyx.zeros({}, { device = device }), {}
  system.record_function(NAME, part, #part, { link }, 1, {}, 0, function()
    local list = late.list
    late.list = nil
    return list
  end)
  return link, late, #part
end

local function saved_of(args)
  local saved, slots, rest = {}, {}, { n = args.n }
  for i = 1, args.n do
    if nyx.is_tensor(args[i]) then
      saved[#saved + 1] = args[i]
      slots[i] = #saved
    else
      rest[i] = args[i]
    end
  end
  return saved, slots, rest
end

-- Records the results of `first` (first_run): `tensors`, of which those at the places `recorded`
-- have a gradient.
local function record(f, args, state, first)
  local captured, outputs = first.captured, {}
  nyx.keep(captured) -- a scope around the call may end before the backward pass
  for k, place in ipairs(first.recorded) do outputs[k] = first.tensors[place] end
  local saved, slots, rest = saved_of(args)
  local node = { f = f, state = state, args = rest, slots = slots, inputs = {},
    captured = captured, results = #first.tensors, recorded = first.recorded }
  local tensors, links = {}, {}
  for i = 1, args.n do
    if slots[i] and args[i].requires_grad then
      node.inputs[#node.inputs + 1] = i
      tensors[#tensors + 1] = args[i]
    end
  end
  local own = #tensors
  if own + #captured <= MOST then
    for _, t in ipairs(captured) do
      tensors[#tensors + 1] = t
      if t.is_leaf and #saved < MOST then saved[#saved + 1] = t end
    end
  else
    local from = 1
    while from <= #captured do
      local link, late, count = hang(captured, from)
      tensors[#tensors + 1] = link
      links[#links + 1] = { late = late, from = from, count = count }
      from = from + count
    end
  end
  system.record_function(NAME, tensors, #tensors, outputs, #outputs, saved, #saved,
    function(values, grads, needs)
      if #links == 0 then return gradients(node, values, grads, needs) end
      local wanted = {}
      for i = 1, own do wanted[i] = needs[i] end
      for k, link in ipairs(links) do
        for i = 1, link.count do wanted[own + link.from + i - 1] = needs[own + k] end
      end
      local all, list = gradients(node, values, grads, wanted), {}
      for i = 1, own do list[i] = all[i] end
      for k, link in ipairs(links) do
        local part = { given = all.given and link.count }
        for i = 1, link.count do part[i] = all[own + link.from + i - 1] end
        link.late.list = part
        list[own + k] = nyx.ones({})
      end
      return list
    end)
end

-- f(...) with its graph, which is gone when this returns: plain results, the tensors in them,
-- at which places of that list some have a gradient, and what f used besides its arguments.
local function first_run(f, args)
  local own, leaves = own_arguments(args, false)
  local results, tensors, any, captured = run(f, own, leaves)
  local recorded = {}
  for k, t in ipairs(tensors) do
    if t.requires_grad then recorded[#recorded + 1] = k end
    if t.requires_grad or holds(leaves, t) then tensors[k] = t:detach() end
  end
  if #tensors > 0 then results = trees.rebuild(results, tensors, NAME) end
  return { results = results, tensors = tensors, recorded = recorded,
    captured = any and captured or nil }
end

local function run_first(without_random, f, ...)
  if not check.is_callable(f) then
    check.fail("checkpoint: 'f' is %s, expected a function or a module", check.describe(f))
  end
  if not nyx.is_grad_enabled() or system.in_transform() then return f(...) end
  local args = pack(...)
  local tensors = 0
  for i = 1, args.n do tensors = tensors + (nyx.is_tensor(args[i]) and 1 or 0) end
  if tensors > MOST / 2 then
    check.fail("checkpoint: %d tensors as arguments, at most %d are allowed; hand them over in "
      .. "a table", tensors, MOST / 2)
  end
  local state = state_now(without_random)
  system.forget_casts()
  local first = nyx.scope(first_run, f, args)
  system.forget_casts()
  if first.captured then record(f, args, state, first) end
  return unpack(first.results, 1, first.results.n)
end

--- f(...), which keeps only its arguments for the backward pass and runs again there, with
--- the same random numbers and the same mixed precision. The gradients are the same, those
--- of parameters that f uses included; they can be differentiated again. Results may be tensors
--- and tables of them. Tensors made inside are released as by nyx.scope, except the results;
--- tensors that f takes from outside have to outlive the backward pass.
--- nyx.checkpoint({preserve_rng_state = false}, f, ...) leaves the random numbers alone: an f
--- that draws some draws others the second time.
---
--- The graph holds f until backward has run or the results are gone. An f that holds one of its
--- own results is a cycle that the collector does not see: it goes when backward has run.
---@param f fun(...): any
---@param ... any
---@return any ... what f gives
function M.checkpoint(f, ...)
  if type(f) == "table" and not getmetatable(f) then
    local options = check.options("checkpoint", f, "preserve_rng_state")
    return run_first(options.preserve_rng_state == false, ...)
  end
  return run_first(false, f, ...)
end

return M
