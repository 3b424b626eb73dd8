-- nn.utils.rnn: sequences of different lengths, one step of all after the other, as recurrent
-- layers take and give them. Read next: recurrent.lua.
local class = require "nyx.class"
local check = require "nyx.check"
local nyx = require "nyx"

local M = {}

local int64 = { dtype = "int64" }

--- Steps of sequences that are sorted by length, the longest first: all first steps, all second
--- ones of those that have one, and so on.
---@class nyx.nn.PackedSequence
---@field data nyx.Tensor (sum of the lengths, ...)
---@field batch_sizes nyx.Tensor how many sequences have a step 1, 2, ..
---@field sorted_indices nyx.Tensor? which sequence is the longest, the next, ..
---@field unsorted_indices nyx.Tensor? where each sequence went
local PackedSequence = class "PackedSequence"
M.PackedSequence = PackedSequence

function PackedSequence:init(data, batch_sizes, sorted_indices, unsorted_indices)
  self.data, self.batch_sizes = data, batch_sizes
  self.sorted_indices, self.unsorted_indices = sorted_indices, unsorted_indices
end

--- Another sequence of the same lengths, with other data.
---@param data nyx.Tensor
---@return nyx.nn.PackedSequence
function PackedSequence:with(data)
  return PackedSequence(data, self.batch_sizes, self.sorted_indices, self.unsorted_indices)
end

-- Steps 1.. as a column, sequences 1.. as a row, and the lengths of sorted sequences.
local function grid(steps, batch)
  return nyx.arange(1, steps + 1, int64):unsqueeze(2), nyx.arange(1, batch + 1, int64)
end

--- The lengths of the sequences, longest first.
---@return nyx.Tensor
function PackedSequence:lengths()
  local steps, batch = self.batch_sizes:size(1), self.batch_sizes[1]:item()
  local _, sequence = grid(steps, batch)
  return self.batch_sizes:unsqueeze(2):ge(sequence):sum(1)
end

-- Where row (step, sequence) of the padded form lies in the packed one: (steps, batch), 0 behind
-- the end of a sequence.
local function places(packed)
  local sizes = packed.batch_sizes
  local _, sequence = grid(sizes:size(1), sizes[1]:item())
  local before = (sizes:cumsum(1) - sizes):unsqueeze(2)
  return (before + sequence) * sequence:le(sizes:unsqueeze(2)):to "int64"
end

--- (steps, batch, ...), sequences in the order of the packed form, `value` behind their ends.
---@param value? number 0 when left out
---@return nyx.Tensor
function PackedSequence:padded(value)
  local data, at = self.data, places(self)
  local shape = data.shape
  shape[1] = 1
  local row = nyx.full(shape, value or 0, { dtype = data.dtype })
  local all = nyx.cat({ row, data }, 1):index_select(at:flatten() + 1, 1)
  shape[1] = at:size(2)
  table.insert(shape, 1, at:size(1))
  return all:reshape(shape)
end

-- The rows of t (steps, batch, ...) that lie before the ends, and its other dimensions.
local function rows_of(t)
  local shape = t.shape
  table.remove(shape, 1)
  shape[1] = -1
  return t:reshape(shape)
end

--- The packed form of t (steps, batch, ...), as padded gives it.
---@param t nyx.Tensor
---@return nyx.nn.PackedSequence
function PackedSequence:pack(t)
  local at = places(self)
  local rows = nyx.arange(1, at:numel() + 1, int64):masked_select(at:flatten():gt(0))
  return self:with(rows_of(t):index_select(rows, 1))
end

--- The last step of each sequence of t (steps, batch, ...): (batch, ...).
---@param t nyx.Tensor
---@return nyx.Tensor
function PackedSequence:last(t)
  local _, sequence = grid(1, t:size(2))
  return rows_of(t):index_select((self:lengths() - 1) * t:size(2) + sequence, 1)
end

-- The sequences of t, in dimension dim, in another order; the same when that is nil.
local function ordered(t, dim, order)
  return t and order and t:index_select(order, dim) or t
end

--- t, whose dimension dim counts the sequences, in the order of the packed form.
---@param t? nyx.Tensor
---@param dim integer
---@return nyx.Tensor?
function PackedSequence:sorted(t, dim) return ordered(t, dim, self.sorted_indices) end

--- The opposite.
---@param t? nyx.Tensor
---@param dim integer
---@return nyx.Tensor?
function PackedSequence:unsorted(t, dim) return ordered(t, dim, self.unsorted_indices) end

-- The lengths as a tensor, within 1..steps.
local function read_lengths(where, lengths, steps, batch)
  if type(lengths) == "table" then
    for i = 1, #lengths do check.integer(where, ("lengths[%d]"):format(i), lengths[i]) end
    lengths = nyx.tensor(lengths, int64)
  end
  check.tensor(where, "lengths", lengths)
  if lengths:dim() ~= 1 or lengths:size(1) ~= batch or batch == 0
    or not lengths.dtype:find "^u?int" then
    check.fail("%s: 'lengths' is %s of %s, expected (%d) integers, one for each sequence, at "
      .. "least one", where, check.describe(lengths), lengths.dtype, batch)
  end
  local least, most = lengths:min():item(), lengths:max():item()
  if least < 1 or most > steps then
    check.fail("%s: a length is %d, expected 1 to %d, as many as there are steps", where,
      least < 1 and least or most, steps)
  end
  return lengths:to "int64"
end

--- Packs sequences that lie padded in one tensor.
---@param x nyx.Tensor (steps, batch, ...), with batch_first (batch, steps, ...)
---@param lengths integer[]|nyx.Tensor of each sequence, at least 1
---@param options? {batch_first: boolean, enforce_sorted: boolean} enforce_sorted: true, the
---  default, says that the longest come first; with false they are sorted
---@return nyx.nn.PackedSequence
function M.pack_padded_sequence(x, lengths, options)
  local where = "nn.utils.rnn.pack_padded_sequence"
  options = check.options(where, options, "batch_first enforce_sorted")
  if check.tensor(where, "the input", x):dim() < 2 then
    check.fail("%s: the input is %s, expected 2 dimensions or more", where, check.describe(x))
  end
  if options.batch_first then x = x:transpose(1, 2) end
  local batch = x:size(2)
  lengths = read_lengths(where, lengths, x:size(1), batch)
  local order, back
  local falls = batch == 1 or lengths:narrow(1, 1, batch - 1):ge(lengths:narrow(1, 2, batch - 1))
    :all():item()
  if options.enforce_sorted == false then
    order = lengths:argsort { descending = true, stable = true }
    back = order:argsort()
    lengths, x = lengths:index_select(order, 1), x:index_select(order, 2)
  elseif not falls then
    check.fail("%s: the lengths do not fall; sort the sequences, the longest first, or pass "
      .. "{enforce_sorted = false}", where)
  end
  local most = lengths[1]:item()
  local step = grid(most, batch)
  local packed = PackedSequence(nil, lengths:ge(step):sum(2), order, back)
  return packed:pack(x:narrow(1, 1, most))
end

--- The opposite: sequences padded in one tensor, in their first order, and their lengths.
---@param packed nyx.nn.PackedSequence
---@param options? {batch_first: boolean, padding_value: number, total_length: integer}
---  total_length: steps of the result, the longest sequence's when left out
---@return nyx.Tensor x (steps, batch, ...), with batch_first (batch, steps, ...)
---@return nyx.Tensor lengths
function M.pad_packed_sequence(packed, options)
  local where = "nn.utils.rnn.pad_packed_sequence"
  options = check.options(where, options, "batch_first padding_value total_length")
  if getmetatable(packed) ~= PackedSequence then
    check.fail("%s: the argument is %s, expected a PackedSequence", where, check.describe(packed))
  end
  local value = check.number(where, "padding_value", options.padding_value or 0)
  local x = packed:padded(value)
  local steps = x:size(1)
  local total = check.integer(where, "total_length", options.total_length or steps, steps)
  if total > steps then
    local shape = x.shape
    shape[1] = total - steps
    x = nyx.cat({ x, nyx.full(shape, value, { dtype = x.dtype }) }, 1)
  end
  x = packed:unsorted(x, 2)
  return options.batch_first and x:transpose(1, 2) or x, packed:unsorted(packed:lengths(), 1)
end

return M
