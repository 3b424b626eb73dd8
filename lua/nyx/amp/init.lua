-- nyx.amp: what training in mixed precision needs besides nyx.autocast.
local nyx = require "nyx"

return {
  autocast = nyx.autocast,
  GradScaler = require("nyx.amp.scaler").GradScaler,
}
