-- nn.Linear, nn.Embedding: layers that hold a matrix.
local class = require "nyx.class"
local check = require "nyx.check"
local initial = require "nyx.nn.initial"
local Module = require "nyx.nn.module"
local nyx = require "nyx"

local M = {}

--- y = x W^T + b over the last dimension, and then, in the same pass, an activation.
---@class nyx.nn.Linear: nyx.nn.Module
local Linear = class("Linear", Module)
M.Linear = Linear

---@param in_features integer
---@param out_features integer
---@param options? {bias: boolean, dtype: string, activation: string} activation: the name of an
---  elementwise op, as "relu" or "gelu"; none when left out
function Linear:init(in_features, out_features, options)
  options = check.options("nn.Linear", options, "bias dtype activation")
  if options.activation ~= nil then
    self.activation = check.type("nn.Linear", "activation", options.activation, "string")
  end
  self.in_features = check.integer("nn.Linear", "in_features", in_features)
  self.out_features = check.integer("nn.Linear", "out_features", out_features)
  local bound = 1 / math.sqrt(in_features)
  local dtype = { dtype = options.dtype }
  self.weight = Module.Parameter(nyx.empty({ out_features, in_features }, dtype))
  initial.uniform_(self.weight, -bound, bound)
  if options.bias ~= false then
    self.bias = Module.Parameter(nyx.empty({ out_features }, dtype))
    initial.uniform_(self.bias, -bound, bound)
  end
end

--- layer(x, residual) adds the residual, of the result's shape, after the activation.
---@param x nyx.Tensor
---@param residual? nyx.Tensor
function Linear:forward(x, residual)
  local activation = self.activation
  if not activation and not residual then return x:linear(self.weight, self.bias) end
  local bias = self.bias
  local trained = x.requires_grad or self.weight.requires_grad or bias and bias.requires_grad
  local y = x:linear_activation(self.weight, bias, residual,
    { activation = activation, keep = trained and nyx.is_grad_enabled() or false })
  return y
end

function Linear:extra_repr()
  return ("in_features=%d, out_features=%d, bias=%s%s"):format(self.in_features,
    self.out_features, tostring(self.bias ~= nil),
    self.activation and ", activation=" .. self.activation or "")
end

--- Rows of a table, one for each label 1..num_embeddings.
---@class nyx.nn.Embedding: nyx.nn.Module
local Embedding = class("Embedding", Module)
M.Embedding = Embedding

---@param num_embeddings integer
---@param embedding_dim integer
---@param options? {padding_idx: integer, dtype: string} the row padding_idx stays zero
function Embedding:init(num_embeddings, embedding_dim, options)
  options = check.options("nn.Embedding", options, "padding_idx dtype")
  self.num_embeddings = check.integer("nn.Embedding", "num_embeddings", num_embeddings)
  self.embedding_dim = check.integer("nn.Embedding", "embedding_dim", embedding_dim)
  self.weight = Module.Parameter(nyx.empty({ num_embeddings, embedding_dim },
    { dtype = options.dtype }))
  initial.normal_(self.weight)
  local padding = options.padding_idx
  if padding ~= nil then
    check.integer("nn.Embedding", "padding_idx", padding)
    if padding > num_embeddings then
      check.fail("nn.Embedding: 'padding_idx' is %d, expected at most %d", padding, num_embeddings)
    end
    self.padding_idx = padding
    nyx.no_grad(function() self.weight:narrow(1, padding, 1):zero_() end)
  end
end

function Embedding:forward(labels)
  return nyx.embedding(self.weight, labels, { padding_idx = self.padding_idx })
end

function Embedding:extra_repr()
  return ("%d, %d%s"):format(self.num_embeddings, self.embedding_dim,
    self.padding_idx and (", padding_idx=%d"):format(self.padding_idx) or "")
end

return M
