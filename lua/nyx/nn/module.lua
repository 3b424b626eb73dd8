-- nn.Module: the base of layers and models. Fields are plain Lua fields; the module notes
-- the order in which parameters, buffers and submodules are first assigned.
-- Read next: linear.lua, container.lua.
local class = require "nyx.class"
local check = require "nyx.check"
local hooks = require "nyx.nn.hooks"
local nyx = require "nyx"

--- Layers and models derive from Module with nyx.class("Name", nn.Module), assign
--- parameters and submodules to fields of self in `init`, and define `forward`.
---
--- A tensor that requires a gradient, assigned to a field, makes the field a parameter,
--- which it stays, also while frozen; a module makes it a submodule. Any other tensor is a
--- plain field; register_buffer makes it part of the state.
---@class nyx.nn.Module
---@field training boolean
local Module = class("Module")

local float_dtypes = { float32 = true, float64 = true, float16 = true, bfloat16 = true }

Module.training = true
Module._is_module = true

--- Whether a value is a module.
---@param value any
---@return boolean
function Module.is_module(value)
  if type(value) ~= "table" then return false end
  local meta = getmetatable(value)
  return type(meta) == "table" and meta._is_module == true
end
local is_module = Module.is_module

local function kind_of(value)
  if is_module(value) then return "module" end
  if type(value) == "userdata" and nyx.is_tensor(value) and value.requires_grad then
    return "parameter"
  end
end

-- Notes that field `key` takes part as `kind`. _order lists names as first assigned.
local function note(self, key, kind)
  local kinds = rawget(self, "_kinds")
  if not kinds then
    kinds = {}
    rawset(self, "_kinds", kinds)
    rawset(self, "_order", {})
  end
  if not kinds[key] then
    local order = rawget(self, "_order")
    order[#order + 1] = key
  end
  kinds[key] = kind
end

-- Runs when an absent field is assigned; later assignments to it cost nothing.
function Module.__newindex(self, key, value)
  rawset(self, key, value)
  local kind = kind_of(value)
  if kind then note(self, key, kind) end
end

function Module.__call(self, ...)
  if rawget(self, "_hooks") then return hooks.call(self, ...) end
  return self:forward(...)
end

--- Calls fn(module, ...) with the inputs before every forward; what it gives, if anything,
--- takes their place. Hooks run when the module is called, not by module:forward(...).
---@param fn function
---@return nyx.nn.HookHandle handle handle:remove() takes the hook away
function Module:register_forward_pre_hook(fn)
  return hooks.add(self, "register_forward_pre_hook", "forward_pre", fn)
end

--- Calls fn(module, inputs, ...) with the list of inputs and the results after every forward;
--- what it gives, if anything, takes the results' place.
---@param fn function
---@return nyx.nn.HookHandle handle
function Module:register_forward_hook(fn)
  return hooks.add(self, "register_forward_hook", "forward", fn)
end

--- Calls fn(module, grad_input, grad_output) in a backward pass once the gradients of all
--- inputs are known: lists by position, nil for what has none (and n, how many). A list that
--- fn gives (or a tensor, for one input) takes the place of grad_input.
---@param fn function
---@return nyx.nn.HookHandle handle
function Module:register_full_backward_hook(fn)
  return hooks.add(self, "register_full_backward_hook", "backward", fn)
end

--- Calls fn(module, grad_output) in a backward pass before it goes through the module; a list
--- that fn gives (or a tensor, for one result) takes the place of grad_output.
---@param fn function
---@return nyx.nn.HookHandle handle
function Module:register_full_backward_pre_hook(fn)
  return hooks.add(self, "register_full_backward_pre_hook", "backward_pre", fn)
end

-- Fields that changed into a parameter or module after their first assignment are found
-- here and noted in the order of their names.
local function fields(self)
  local kinds, late = rawget(self, "_kinds") or {}, nil
  for key, value in next, self do
    if not kinds[key] and kind_of(value) then
      late = late or {}
      late[#late + 1] = key
    end
  end
  if late then
    table.sort(late, function(a, b) return tostring(a) < tostring(b) end)
    for _, key in ipairs(late) do note(self, key, kind_of(rawget(self, key))) end
  end
  return rawget(self, "_order") or {}, rawget(self, "_kinds") or {}
end

-- Calls fn(name, value, owner, key) for every field of `kind`, depth first, in order. Each
-- tensor or module is visited once, under the first of its names.
local function walk(self, kind, fn, prefix, seen)
  seen = seen or {}
  if seen[self] then return end
  seen[self] = true
  local order, kinds = fields(self)
  for _, key in ipairs(order) do
    local value = rawget(self, key)
    if value ~= nil and kinds[key] ~= "module" and (kind == kinds[key] or kind == "state") then
      if not seen[value] then
        seen[value] = true
        fn(prefix .. key, value, self, key)
      end
    end
  end
  for _, key in ipairs(order) do
    local value = rawget(self, key)
    if kinds[key] == "module" and is_module(value) and not seen[value] then
      if kind == "module" then fn(prefix .. key, value, self, key) end
      walk(value, kind, fn, prefix .. key .. ".", seen)
    end
  end
end

local function list_of(self, kind)
  local list = {}
  walk(self, kind, function(_, value) list[#list + 1] = value end, "")
  return list
end

local function iterator_of(self, kind)
  local names, values = {}, {}
  walk(self, kind, function(name, value)
    names[#names + 1], values[#values + 1] = name, value
  end, "")
  local i = 0
  return function()
    i = i + 1
    return names[i], values[i]
  end
end

--- What the module computes; every module defines it.
---@param ... any
---@return any
function Module:forward(...) -- luacheck: no unused args
  check.fail("%s defines no forward; write function %s:forward(x) ... end", self:class_name(),
    self:class_name())
end

--- The name of the module's class.
---@return string
function Module:class_name()
  return getmetatable(self).__name
end

--- All parameters, of submodules too, in the order they were assigned.
---@return table list
function Module:parameters() return list_of(self, "parameter") end

--- for name, tensor in model:named_parameters() do
---@return fun(): string?, any
function Module:named_parameters() return iterator_of(self, "parameter") end

--- All buffers: state that is not trained.
---@return table list
function Module:buffers() return list_of(self, "buffer") end

--- for name, tensor in model:named_buffers() do
---@return fun(): string?, any
function Module:named_buffers() return iterator_of(self, "buffer") end

--- This module and all below it.
---@return table list
function Module:modules()
  local list = list_of(self, "module")
  table.insert(list, 1, self)
  return list
end

--- for name, module in model:named_modules() do: all modules below this one.
---@return fun(): string?, nyx.nn.Module?
function Module:named_modules() return iterator_of(self, "module") end

--- The submodules directly below.
---@return table list
function Module:children()
  local list = {}
  local order, kinds = fields(self)
  for _, key in ipairs(order) do
    local child = rawget(self, key)
    if kinds[key] == "module" and is_module(child) then list[#list + 1] = child end
  end
  return list
end

--- Calls fn(module) for all submodules, innermost first, then for this one.
---@param fn fun(module: nyx.nn.Module)
---@return nyx.nn.Module self
function Module:apply(fn)
  check.type("apply", "fn", fn, "function")
  for _, child in ipairs(self:children()) do child:apply(fn) end
  fn(self)
  return self
end

--- Makes a field a parameter, whether or not it requires a gradient now.
---@param name string
---@param tensor any
function Module:register_parameter(name, tensor)
  check.tensor("register_parameter", name, tensor)
  rawset(self, name, tensor)
  note(self, name, "parameter")
end

--- Makes a field part of the state that is not trained (running statistics).
---@param name string
---@param tensor any
function Module:register_buffer(name, tensor)
  check.tensor("register_buffer", name, tensor)
  rawset(self, name, tensor)
  note(self, name, "buffer")
end

--- For inference: layers keep their weights packed for the kernels between calls, in as much
--- memory again. A weight that is changed is packed anew. prepack(false) and train() give the
--- memory back; weights that `to` replaces are to be prepacked again.
---@param on? boolean default true
---@return nyx.nn.Module self
function Module:prepack(on)
  on = on ~= false
  walk(self, "state", function(_, tensor)
    if tensor.ndim > 1 then tensor:keep_packed(on) end
  end, "")
  return self
end

--- Sets training mode, for dropout and batch norm, here and in all submodules, and takes back
--- prepack.
---@param on? boolean default true
---@return nyx.nn.Module self
function Module:train(on)
  on = on ~= false
  if on then self:prepack(false) end
  for _, module in ipairs(self:modules()) do rawset(module, "training", on) end
  return self
end

--- Sets evaluation mode: train(false).
---@return nyx.nn.Module self
function Module:eval() return self:train(false) end

--- Forgets all gradients.
---@return nyx.nn.Module self
function Module:zero_grad()
  for _, parameter in ipairs(self:parameters()) do parameter.grad = nil end
  return self
end

--- Freezes (false) or unfreezes all parameters.
---@param on? boolean default true
---@return nyx.nn.Module self
function Module:requires_grad_(on)
  on = on ~= false
  for _, parameter in ipairs(self:parameters()) do parameter:requires_grad_(on) end
  return self
end

-- The full name of a dtype ("f64" is one too); nil for anything else.
local function dtype_named(name)
  local known, probe = pcall(nyx.empty, { 0 }, { dtype = name })
  return known and probe.dtype or nil
end

-- What `to` makes of one tensor: only floats change their dtype, only weights of images
-- lie channels-last.
local function converted(value, target)
  local own = value:detach()
  local result = own
  if target.device then result = result:to(target.device) end
  if target.dtype and float_dtypes[value.dtype] then result = result:to(target.dtype) end
  if target.memory_format and value.ndim == 4 then
    result = result:to { memory_format = target.memory_format }
  end
  if rawequal(result, own) then return value end
  return value.requires_grad and result:requires_grad_(true) or result
end

--- Moves parameters and buffers to a device ("opencl"), converts the float ones to a float
--- dtype ("float64"), or lays those of four dimensions out in a memory format, as options.
--- What changes is replaced: make the optimiser afterwards.
---@param target string|{dtype: string, device: string, memory_format: string}
---@return nyx.nn.Module self
function Module:to(target)
  if type(target) == "string" then
    target = dtype_named(target) and { dtype = target } or { device = target }
  end
  target = check.options("to", target, "dtype device memory_format")
  if target.dtype and not float_dtypes[dtype_named(target.dtype)] then
    check.fail("to: 'dtype' is %s, expected a float dtype: float32, float64, float16 or bfloat16",
      check.describe(target.dtype))
  end
  local moved = {} -- a tensor with two names stays one tensor
  local places = {} -- assigned last, so that an error on the way changes nothing
  local function visit(module, done)
    if done[module] then return end
    done[module] = true
    local order, kinds = fields(module)
    for _, key in ipairs(order) do
      local value = rawget(module, key)
      if kinds[key] == "module" then
        if is_module(value) then visit(value, done) end
      elseif value ~= nil then
        moved[value] = moved[value] or converted(value, target)
        places[#places + 1] = { module = module, key = key, tensor = moved[value] }
      end
    end
  end
  visit(self, {})
  for _, place in ipairs(places) do rawset(place.module, place.key, place.tensor) end
  return self
end

--- The state: names and tensors of all parameters and buffers, sharing memory with them.
---@return table<string, any>
function Module:state_dict()
  local state = {}
  walk(self, "state", function(name, value) state[name] = value:detach() end, "")
  return state
end

-- All names of the state with their tensors, also second names of shared ones.
local function state_names(self, prefix, out, above)
  if above[self] then return out end
  above[self] = true
  local order, kinds = fields(self)
  for _, key in ipairs(order) do
    local value = rawget(self, key)
    if kinds[key] == "module" then
      if is_module(value) then state_names(value, prefix .. key .. ".", out, above) end
    elseif value ~= nil then
      out[#out + 1] = { name = prefix .. key, tensor = value, owner = self, key = key }
    end
  end
  above[self] = nil
  return out
end

--- Where parameters and buffers lie: every field that holds one, under each of its names.
---@param self nyx.nn.Module
---@return {name: string, tensor: nyx.Tensor, owner: nyx.nn.Module, key: string|integer}[]
function Module.state_places(self)
  return state_names(self, "", {}, {})
end

local function shape_text(tensor)
  return table.concat(tensor.shape, "x")
end

--- Copies a state into the parameters and buffers. Every name must be present with the
--- right shape, and no other; {strict = false} allows missing and unexpected names. When
--- something does not fit, nothing is changed.
---@param state table<string, any>
---@param options? {strict: boolean}
---@return {missing: string[], unexpected: string[]}
function Module:load_state_dict(state, options)
  check.type("load_state_dict", "state", state, "table")
  options = check.options("load_state_dict", options, "strict")
  local missing, unexpected, wrong = {}, {}, {}
  local own, known, reached = {}, {}, {}
  walk(self, "state", function(_, tensor) reached[tensor] = false end, "")
  for _, entry in ipairs(Module.state_places(self)) do
    known[entry.name] = true
    local source = state[entry.name]
    if source ~= nil then
      if not nyx.is_tensor(source) then
        wrong[#wrong + 1] = ("%s is %s, expected a tensor"):format(entry.name,
          check.describe(source))
      elseif shape_text(source) ~= shape_text(entry.tensor) then
        wrong[#wrong + 1] = ("%s has shape (%s), expected (%s)"):format(entry.name,
          shape_text(source), shape_text(entry.tensor))
      end
      reached[entry.tensor] = true
      own[#own + 1] = { tensor = entry.tensor, source = source }
    end
  end
  -- A shared tensor is missing only when none of its names is there.
  walk(self, "state", function(name, tensor)
    if not reached[tensor] then missing[#missing + 1] = name end
  end, "")
  for name in pairs(state) do
    if not known[name] then unexpected[#unexpected + 1] = tostring(name) end
  end
  table.sort(unexpected)
  local problems = {}
  local function report(title, list)
    if #list == 0 then return end
    problems[#problems + 1] = ("\n  %s: %s"):format(title, table.concat(list, ", "))
  end
  if options.strict ~= false then
    report("missing", missing)
    report("unexpected", unexpected)
  end
  report("mismatched", wrong)
  if #problems > 0 then
    check.fail("%s", ("load_state_dict: the state does not fit %s:%s"):format(self:class_name(),
      table.concat(problems)))
  end
  nyx.no_grad(function()
    for _, entry in ipairs(own) do entry.tensor:copy_(entry.source) end
  end)
  return { missing = missing, unexpected = unexpected }
end

--- Sets a field as nyx.load found it, with the part it plays: "parameter", "buffer",
--- "module" or nil.
---@param self nyx.nn.Module
---@param key string|integer
---@param value any
---@param kind string?
function Module.restore(self, key, value, kind)
  rawset(self, key, value)
  if kind then note(self, key, kind) end
end

--- The part a field plays in the module now; nil for plain fields.
---@param self nyx.nn.Module
---@param key string|integer
---@return string?
function Module.role(self, key)
  local kind = (rawget(self, "_kinds") or {})[key]
  local value = rawget(self, key)
  if kind == "module" then return is_module(value) and kind or nil end
  return kind and nyx.is_tensor(value) and kind or kind_of(value)
end

--- What tostring shows between the parentheses; layers override it.
---@return string
function Module:extra_repr() return "" end -- luacheck: no self

--- The number of elements of all parameters.
---@return integer
function Module:parameter_count()
  local count = 0
  for _, parameter in ipairs(self:parameters()) do count = count + parameter:numel() end
  return count
end

local function tree(self, indent, above)
  if above[self] then return self:class_name() .. "(...)" end
  above[self] = true
  local order, kinds = fields(self)
  local lines = {}
  for _, key in ipairs(order) do
    local child = rawget(self, key)
    if kinds[key] == "module" and is_module(child) then
      lines[#lines + 1] = ("%s  (%s): %s"):format(indent, key, tree(child, indent .. "  ", above))
    end
  end
  above[self] = nil
  -- A module of a damaged file may lack the fields it would tell.
  local ok, extra = pcall(self.extra_repr, self)
  if not ok then extra = "?" end
  if #lines == 0 then return ("%s(%s)"):format(self:class_name(), extra) end
  return ("%s(%s\n%s\n%s)"):format(self:class_name(), extra, table.concat(lines, "\n"), indent)
end

function Module.__tostring(self)
  local count = self:parameter_count()
  return tree(self, "", {}) .. (count > 0 and ("\n%d parameters"):format(count) or "")
end

--- A tensor as a trainable parameter: a leaf that requires a gradient and shares memory
--- with `tensor`.
---@param tensor any
---@return any
function Module.Parameter(tensor)
  return check.tensor("nn.Parameter", "tensor", tensor):detach():requires_grad_(true)
end

return Module
