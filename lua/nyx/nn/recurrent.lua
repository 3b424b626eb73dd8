-- nn.LSTM, nn.GRU, nn.RNN and their cells. Read next: core/op/recurrence.c, the op they are
-- made of.
local class = require "nyx.class"
local check = require "nyx.check"
local initial = require "nyx.nn.initial"
local Module = require "nyx.nn.module"
local packing = require "nyx.nn.packed"
local nyx = require "nyx"

local M = {}

local gates_of = { lstm = 4, gru = 3, tanh = 1, relu = 1 }

-- The parameters of one direction of one layer, in PyTorch's order and with its names.
local function add_parameters(self, suffix, inputs, options)
  local rows, state = gates_of[self.mode] * self.hidden_size, self.proj_size or self.hidden_size
  local bound = self.hidden_size ^ -0.5
  local function add(name, ...)
    local parameter = Module.Parameter(nyx.empty({ ... }, { dtype = options.dtype }))
    self[name .. suffix] = initial.uniform_(parameter, -bound, bound)
  end
  add("weight_ih", rows, inputs)
  add("weight_hh", rows, state)
  if options.bias ~= false then
    add("bias_ih", rows)
    add("bias_hh", rows)
  end
  if self.proj_size then add("weight_hr", state, self.hidden_size) end
end

-- One direction of one layer over x (length, batch, features): the states of all steps, and of
-- an LSTM the cells. `lengths`: of the sequences, where they differ.
local function steps(self, suffix, reverse, x, h0, c0, lengths)
  local y, _, cells = nyx.recurrence(x, self["weight_ih" .. suffix], self["weight_hh" .. suffix],
    { bias_ih = self["bias_ih" .. suffix], bias_hh = self["bias_hh" .. suffix], h0 = h0, c0 = c0,
      weight_hr = self["weight_hr" .. suffix], lengths = lengths, mode = self.mode,
      reverse = reverse })
  return y, cells
end

-- Checks the input of a layer (dims 3) or cell (2) and that there may be cells; whether it comes
-- without a batch.
local function check_input(where, self, x, c, dims)
  local single = check.tensor(where, "the input", x):dim() == dims - 1
  if not single and x:dim() ~= dims then
    check.fail("%s: the input is %s, expected %d dimensions, or %d without a batch", where,
      check.describe(x), dims, dims - 1)
  end
  if x:size(-1) ~= self.input_size then
    check.fail("%s: the input is %s, expected %d features (input_size) in its last dimension",
      where, check.describe(x), self.input_size)
  end
  if c ~= nil and self.mode ~= "lstm" then
    check.fail("%s: a third argument is given, but it has no cells", where)
  end
  return single
end

local function with_batch(where, name, state, dim)
  return state and check.tensor(where, name, state):unsqueeze(dim)
end

local function check_shape(where, name, state, ...)
  if state == nil then return end
  local want = table.concat({ ... }, "x")
  if table.concat(check.tensor(where, name, state).shape, "x") ~= want then
    check.fail("%s: '%s' is %s, expected (%s)", where, name, check.describe(state), want)
  end
end

-- ---------------------------------------------------------------- layers

-- What the three have in common; `mode` is the op's.
local Recurrent = class("Recurrent", Module)

---@param input_size integer features of the input
---@param hidden_size integer features of the state
---@param options? {num_layers: integer, bias: boolean, batch_first: boolean, dropout: number,
---  bidirectional: boolean, proj_size: integer, dtype: string} batch_first: (batch, length,
---  features) instead of (length, batch, features); dropout: of every layer's result but the last
---  one's, in training; proj_size, of an LSTM: features of the states, which a further weight
---  makes of hidden_size (Sak et al. 2014); 0, the default: hidden_size
function Recurrent:init(input_size, hidden_size, options)
  local where = "nn." .. self:class_name()
  options = check.options(where, options, "num_layers bias batch_first dropout bidirectional dtype"
    .. (self.mode == "lstm" and " proj_size" or self.mode and "" or " nonlinearity"))
  self.input_size = check.integer(where, "input_size", input_size)
  self.hidden_size = check.integer(where, "hidden_size", hidden_size)
  self.num_layers = check.integer(where, "num_layers", options.num_layers or 1)
  self.batch_first = options.batch_first or false
  self.dropout = check.number(where, "dropout", options.dropout or 0, 0, 1)
  self.bidirectional = options.bidirectional or false
  if not self.mode then
    self.mode = check.choice(where, "nonlinearity", options.nonlinearity or "tanh", "tanh relu")
  end
  local state = check.integer(where, "proj_size", options.proj_size or 0, 0)
  if state >= hidden_size then
    check.fail("%s: 'proj_size' is %d, expected less than 'hidden_size', %d", where, state,
      hidden_size)
  end
  self.proj_size = state > 0 and state or nil
  local inputs = input_size
  for layer = 0, self.num_layers - 1 do
    add_parameters(self, "_l" .. layer, inputs, options)
    if self.bidirectional then
      add_parameters(self, "_l" .. layer .. "_reverse", inputs, options)
    end
    inputs = (self.proj_size or hidden_size) * (self.bidirectional and 2 or 1)
  end
end

-- One layer, in both directions if there are two; the last states go to the lists h and c.
local function run_layer(self, layer, x, h0, c0, h, c, packed)
  local results, lengths = {}, packed and packed:lengths()
  for way = 1, self.bidirectional and 2 or 1 do
    local reverse, i = way == 2, #h + 1
    local suffix = "_l" .. layer .. (reverse and "_reverse" or "")
    local y, cells = steps(self, suffix, reverse, x, h0 and h0[i], c0 and c0[i], lengths)
    local function last(t)
      if reverse then return t[1] end
      return packed and packed:last(t) or t[t:size(1)]
    end
    h[i] = last(y)
    c[i] = cells and last(cells):to(y.dtype)
    results[way] = y
  end
  return results[2] and nyx.cat(results, -1) or results[1]
end

-- All layers over x (length, batch, features).
local function run_layers(self, x, h0, c0, packed)
  local where = "nn." .. self:class_name()
  local states = self.num_layers * (self.bidirectional and 2 or 1)
  check_shape(where, "h0", h0, states, x:size(2), self.proj_size or self.hidden_size)
  check_shape(where, "c0", c0, states, x:size(2), self.hidden_size)
  local h, c = {}, {}
  for layer = 0, self.num_layers - 1 do
    if layer > 0 and self.training and self.dropout > 0 then x = x:dropout(self.dropout) end
    x = run_layer(self, layer, x, h0, c0, h, c, packed)
  end
  return x, nyx.stack(h, 1), c[1] and nyx.stack(c, 1)
end

-- Sequences of different lengths: padded, all of them in one go; the op leaves out what lies
-- behind the ends. First and last states are in the sequences' own order.
local function run_packed(self, packed, h0, c0)
  check_input("nn." .. self:class_name(), self, packed.data, c0, 2)
  local y, h, c = run_layers(self, packed:padded(), packed:sorted(h0, 2), packed:sorted(c0, 2),
    packed)
  return packed:pack(y), packed:unsorted(h, 2), packed:unsorted(c, 2)
end

---@param x nyx.Tensor|nyx.nn.PackedSequence (length, batch, features), with batch_first (batch,
---  length, features), or (length, features); or sequences of different lengths, packed
---@param h0? nyx.Tensor first states, (num_layers * directions, batch, hidden_size or proj_size),
---  without batch as x is; zero when left out
---@param c0? nyx.Tensor first cells of an LSTM, (num_layers * directions, batch, hidden_size)
---@return nyx.Tensor|nyx.nn.PackedSequence y the states of the last layer, (length, batch,
---  directions * state), packed as x is
---@return nyx.Tensor h the last states, shaped as h0
---@return nyx.Tensor? c the last cells of an LSTM
function Recurrent:forward(x, h0, c0)
  if getmetatable(x) == packing.PackedSequence then return run_packed(self, x, h0, c0) end
  local where = "nn." .. self:class_name()
  local single = check_input(where, self, x, c0, 3)
  if single then
    x = x:unsqueeze(2)
    h0, c0 = with_batch(where, "h0", h0, 2), with_batch(where, "c0", c0, 2)
  elseif self.batch_first then
    x = x:transpose(1, 2)
  end
  local h, c
  x, h, c = run_layers(self, x, h0, c0)
  if single then return x:squeeze(2), h:squeeze(2), c and c:squeeze(2) end
  return self.batch_first and x:transpose(1, 2) or x, h, c
end

function Recurrent:extra_repr()
  local parts = { ("%d, %d"):format(self.input_size, self.hidden_size) }
  if self.proj_size then parts[2] = ("proj_size=%d"):format(self.proj_size) end
  if self.num_layers > 1 then parts[#parts + 1] = ("num_layers=%d"):format(self.num_layers) end
  if self.batch_first then parts[#parts + 1] = "batch_first=true" end
  if self.dropout > 0 then parts[#parts + 1] = ("dropout=%g"):format(self.dropout) end
  if self.bidirectional then parts[#parts + 1] = "bidirectional=true" end
  if self.mode == "relu" then parts[#parts + 1] = "nonlinearity=relu" end
  return table.concat(parts, ", ")
end

--- Long short-term memory (Hochreiter, Schmidhuber 1997): y, h, c = lstm(x, h0, c0).
---@class nyx.nn.LSTM: nyx.nn.Module
M.LSTM = class("LSTM", Recurrent)
M.LSTM.mode = "lstm"

--- Gated recurrent units (Cho et al. 2014), with the reset gate after the product, as in
--- PyTorch: y, h = gru(x, h0).
---@class nyx.nn.GRU: nyx.nn.Module
M.GRU = class("GRU", Recurrent)
M.GRU.mode = "gru"

--- A simple recurrent net (Elman 1990): y, h = rnn(x, h0). Its option nonlinearity is "tanh" or
--- "relu".
---@class nyx.nn.RNN: nyx.nn.Module
M.RNN = class("RNN", Recurrent)

-- ---------------------------------------------------------------- cells

-- One step of one layer.
local Cell = class("Cell", Module)

---@param input_size integer
---@param hidden_size integer
---@param options? {bias: boolean, dtype: string}
function Cell:init(input_size, hidden_size, options)
  local where = "nn." .. self:class_name()
  options = check.options(where, options, "bias dtype" .. (self.mode and "" or " nonlinearity"))
  self.input_size = check.integer(where, "input_size", input_size)
  self.hidden_size = check.integer(where, "hidden_size", hidden_size)
  if not self.mode then
    self.mode = check.choice(where, "nonlinearity", options.nonlinearity or "tanh", "tanh relu")
  end
  add_parameters(self, "", input_size, options)
end

---@param x nyx.Tensor (batch, input_size), or (input_size)
---@param h? nyx.Tensor the state before, (batch, hidden_size); zero when left out
---@param c? nyx.Tensor the cell before, of an LSTM
---@return nyx.Tensor h
---@return nyx.Tensor? c of an LSTM
function Cell:forward(x, h, c)
  local where = "nn." .. self:class_name()
  local single = check_input(where, self, x, c, 2)
  if single then
    x = x:unsqueeze(1)
    h, c = with_batch(where, "h", h, 1), with_batch(where, "c", c, 1)
  end
  check_shape(where, "h", h, x:size(1), self.hidden_size)
  check_shape(where, "c", c, x:size(1), self.hidden_size)
  local y, cells = steps(self, "", false, x:unsqueeze(1), h, c)
  y, cells = y:squeeze(1), cells and cells:squeeze(1):to(y.dtype)
  if single then return y:squeeze(1), cells and cells:squeeze(1) end
  return y, cells
end

function Cell:extra_repr()
  return ("%d, %d%s"):format(self.input_size, self.hidden_size,
    self.mode == "relu" and ", nonlinearity=relu" or "")
end

--- One step of nn.LSTM: h, c = cell(x, h, c).
---@class nyx.nn.LSTMCell: nyx.nn.Module
M.LSTMCell = class("LSTMCell", Cell)
M.LSTMCell.mode = "lstm"

--- One step of nn.GRU: h = cell(x, h).
---@class nyx.nn.GRUCell: nyx.nn.Module
M.GRUCell = class("GRUCell", Cell)
M.GRUCell.mode = "gru"

--- One step of nn.RNN: h = cell(x, h).
---@class nyx.nn.RNNCell: nyx.nn.Module
M.RNNCell = class("RNNCell", Cell)

return M
