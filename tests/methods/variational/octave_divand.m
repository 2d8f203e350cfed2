% One analysis by octave-divand: octave-cli octave_divand.m QUESTION.mat ANSWER.mat
pkg load divand
files = argv();
q = load(files{1});
positions = num2cell(q.positions, 1);
lengths = q.lengths;
if numel(lengths) == 1
  lengths = lengths{1};   % one dimension: divand wants the array itself
end
noise = q.noise;
if isscalar(noise)
  noise = 1 / noise;      % divand reads a scalar as a signal-to-noise ratio, a vector as variances
end
options = {};
if ! isempty(q.alpha)
  options(end+1:end+2) = {'alpha', q.alpha};
end
if ! isempty(q.period)
  options(end+1:end+2) = {'moddim', q.period};
end
if iscell(q.velocity)
  options(end+1:end+2) = {'velocity', q.velocity};
end
problem = {logical(q.mask), q.metrics, q.coords, positions, q.values, lengths, noise};
tic;
field = full(divand(problem{:}, options{:}));
seconds = toc;
variance = [];
if q.want_error
  [again, variance] = divand(problem{:}, options{:});
  variance = full(variance);
end
save('-v7', files{2}, 'field', 'variance', 'seconds');
