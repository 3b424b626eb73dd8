-- The script that arena.c runs. It gives a function that gets the host's arena and makes the
-- one that the host calls in each frame; that moves the particles where they lie.
local nyx = require "nyx"

return function(arena)
  local position, velocity = arena:buffer "position", arena:buffer "velocity"
  local gravity = nyx.tensor { 0, -9.81, 0 }
  return function(seconds)
    position:add_(velocity * seconds)
    velocity:add_(gravity * seconds)
  end
end
