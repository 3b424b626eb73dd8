-- nyx.train: what a training script shows: progress, accuracy, confusion matrices.
local confusion = require "nyx.train.confusion"

return {
  progress = require "nyx.train.progress",
  accuracy = confusion.accuracy,
  confusion = confusion.confusion,
  confusion_text = confusion.confusion_text,
}
